"""`factory channel` and `factory device` as commands: what they print, what they do, and what they refuse."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.device.client import Refused
from flows.cli.main import app
from flows.cli.output import share_of
from flows.cli.triggers import look_once
from flows.factory import open_factory
from flows.watching import Watcher
from infra.errors import FactoryError
from registry.channel.metadata import utc_now
from tests.registry.workshop import SUMMARIES, Workshop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workspace whose channel was published four days ago; commands run beside it."""
    monkeypatch.chdir(tmp_path)
    shop = Workshop(tmp_path / ".factory", now=lambda: utc_now() - timedelta(days=4))
    shop.promote(shop.release())
    return shop


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_show_refresh_and_show_again(shop: Workshop) -> None:
    shown = json.loads(run("channel", "show", "--json"))
    assert [(one["feature"], one["version"]) for one in shown["pointers"]] == [("base", 1), (SUMMARIES, 1)]
    assert {feature: head["number"] for feature, head in shown["heads"].items()} == {"base": 1, SUMMARIES: 1}
    assert shown["expires"].keys() == {
        "root", "targets", "snapshot", "timestamp", "feature-base", "feature-summarization",
    }  # fmt: skip
    (warning,) = shown["warnings"]
    assert "timestamp expires soon" in warning
    assert f"warning: {warning}" in run("channel", "show")
    assert json.loads(run("channel", "refresh", "--json")) == {"signed": ["snapshot", "timestamp"], "warnings": []}
    assert json.loads(run("channel", "show", "--json"))["warnings"] == []
    assert "nothing is due" in run("channel", "refresh")


def test_former_files_are_removed(shop: Workshop) -> None:
    run("channel", "refresh")
    assert "removed 0 files" in run("channel", "prune")
    planned = json.loads(run("channel", "prune", "--older-than", "0h", "--dry-run", "--json"))
    assert "snapshot.json" in {one["key"].split(".", 1)[1] for one in planned["files"]}
    assert json.loads(run("channel", "prune", "--older-than", "0h", "--json")) == planned | {"removed": True}
    assert "would remove 0 files" in run("channel", "prune", "--older-than", "0h", "--dry-run")


def test_watching_keeps_the_channel_signed_though_a_recipe_is_wrong(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shop.folder.parent / "broken" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("feature: [", "utf-8")
    monkeypatch.setenv("FACTORY_FEATURES", json.dumps([str(recipe.parent)]))
    before = shop.channel.repository.published().expires
    with pytest.raises(FactoryError, match="not YAML"):
        look_once(open_factory(shop.folder), Watcher(), True, set())
    assert shop.channel.repository.published().expires > before + timedelta(days=3)


def test_a_device_pulls_and_follows_a_rotation(shop: Workshop) -> None:
    place = shop.location
    pulled = json.loads(run("device", "pull", "base", "phone", "--channel", place, "--json"))
    assert pulled["downloaded"] > 0
    assert "downloaded" in run("device", "pull", SUMMARIES, "phone", "--channel", place)
    assert "a new key" in run("channel", "rotate", "timestamp")
    assert "there already" in run("device", "pull", SUMMARIES, "phone", "--channel", place)
    stranger = Workshop(shop.folder.parent / "stranger")
    stranger.release()
    with pytest.raises(Refused, match="not signed by the keys"):
        run("device", "pull", "base", "new", "--channel", place, "--root", str(stranger.root))


def test_shares_are_written_in_percent() -> None:
    assert (share_of("5%"), share_of("0.5%"), share_of("100%")) == (0.05, 0.005, 1.0)
    for text in ("5", "0%", "101%", "-5%", "5 %", "", "nan%"):
        with pytest.raises(FactoryError, match="no share of the devices"):
            share_of(text)
