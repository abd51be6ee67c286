"""Settings: who wins over whom, and what a wrong one says."""

from pathlib import Path

import pytest

from infra.errors import FactoryError
from infra.settings import Settings, edit_settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and no FACTORY_ variable of the machine's own."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("FACTORY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.home, settings.profile, settings.features) == (Path(".factory"), "quick", [])


def test_each_source_wins_over_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "factory.toml").write_text('home = "toml"\ndevice = "toml"\nbase = "toml"\n')
    monkeypatch.setenv("FACTORY_HOME", "variable")
    monkeypatch.setenv("FACTORY_DEVICE", "variable")
    settings = load_settings(home=Path("option"))
    assert (settings.home, settings.device, settings.base) == (Path("option"), "variable", "toml")
    assert settings.profile == "quick"


def test_option_that_was_not_given_does_not_count(folder: Path) -> None:
    (folder / "factory.toml").write_text('home = "toml"\nshipped_features = true\n')
    settings = load_settings(home=None, shipped_features=False)
    assert (settings.home, settings.shipped_features) == (Path("toml"), False)


def test_lists_come_from_toml_and_as_json_from_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "factory.toml").write_text('features = ["one", "two"]\n')
    assert load_settings().features == [Path("one"), Path("two")]
    monkeypatch.setenv("FACTORY_FEATURES", '["three"]')
    assert load_settings().features == [Path("three")]


def test_unknown_keys_and_wrong_values_are_named_at_once(folder: Path) -> None:
    (folder / "factory.toml").write_text('hoem = "x"\nprofile = "fast"\n')
    with pytest.raises(FactoryError) as caught:
        load_settings(devise="cpu")
    for part in ("factory.toml", "hoem", "profile", "'quick' or 'full'", "devise"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"home = ", b"home = \xff"], ids=["syntax", "encoding"])
def test_bad_toml_is_told_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "factory.toml").write_bytes(content)
    with pytest.raises(FactoryError, match=r"^factory\.toml: not TOML: .*$"):
        load_settings()


def test_list_variable_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_FEATURES", "mine")
    with pytest.raises(FactoryError, match=r"features.*JSON"):
        load_settings()


def test_settings_do_not_change_and_do_not_show_the_key() -> None:
    settings = load_settings(teacher_api_keys={"big": "sk-secret"})
    assert "sk-secret" not in repr(settings)
    with pytest.raises(ValueError, match="frozen"):
        settings.home = Path("elsewhere")


def test_every_setting_says_what_it_is() -> None:
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert not undescribed


def test_an_edit_leaves_comments_and_other_settings(folder: Path) -> None:
    (folder / "factory.toml").write_text('# ours\nhome = "toml"  # a disk of its own\n')
    edit_settings(lambda document: document.update(bits_per_weight=3.7))
    written = '# ours\nhome = "toml"  # a disk of its own\nbits_per_weight = 3.7\n'
    assert (folder / "factory.toml").read_text() == written
    assert load_settings().bits_per_weight == 3.7


def test_an_edit_of_a_broken_file_leaves_it(folder: Path) -> None:
    (folder / "factory.toml").write_text("home = ")
    with pytest.raises(FactoryError, match=r"factory\.toml: not TOML"):
        edit_settings(lambda document: document.update(bits_per_weight=3.7))
    assert (folder / "factory.toml").read_text() == "home = "
