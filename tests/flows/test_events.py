"""Events: a change is told once, whoever looks and however often; it waits for the server, and is never lost."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.events import announce_base, announced_base, observe, outbox_of, send, settle_base
from flows.factory import Factory
from flows.outbox import Event, Outbox
from infra.canonical import digest
from infra.errors import Unavailable
from infra.settings import Settings
from registry.decisions import Action, Decision
from tests.flows.line import make_feature, read_rows, write_rows

MARKS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=30)


def tell(key: str, former: str | None, mark: str) -> list[Event]:
    return [Event("changed", key, {"old": former, "new": mark})]


@settings(max_examples=8, deadline=None)
@given(looks=MARKS)
def test_each_change_is_told_once(tmp_path_factory: pytest.TempPathFactory, looks: list[tuple[str, str]]) -> None:
    outbox = Outbox(tmp_path_factory.mktemp("outbox") / "events.db")
    known: dict[str, str] = {}
    expected = []
    for key, mark in looks:
        if known.get(key) != mark:
            expected.append((key, known.get(key), mark))
        known[key] = mark
        outbox.observe({key: mark}, tell)
    waiting = outbox.waiting()
    told = [(one.event.subject, one.event.facts["old"], one.event.facts["new"]) for one in waiting]
    assert told == expected
    assert len({one.id for one in waiting}) == len(waiting)


def test_who_read_a_number_long_ago_changes_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "events.db")
    told = [len(outbox.observe({"ledger a": mark}, tell)) for mark in ("5", "10", "9", "10", "11")]
    assert told == [1, 1, 0, 0, 1]
    assert outbox.mark("ledger a") == "11"


def test_what_cannot_be_told_was_not_seen(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "events.db")

    def fails(*_: object) -> list[Event]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        outbox.observe({"a": "1"}, fails)
    assert [one.subject for one in outbox.observe({"a": "1"}, tell)] == ["a"]


def test_a_mark_is_read_while_somebody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.outbox._WAIT_SECONDS", 0.0)
    outbox = Outbox(tmp_path / "events.db")
    outbox.observe({"a": "1"}, tell)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert outbox.mark("a") == "1"
        assert len(outbox.waiting()) == 1
        with pytest.raises(Unavailable, match=r"events\.db: database is locked"):
            outbox.observe({"a": "2"}, tell)


def test_a_damaged_outbox_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Unavailable, match=r"events\.db: file is not a database; move it away"):
        Outbox(tmp_path / "events.db").mark("a")


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    folder = make_feature(tmp_path / "features" / "edit", "sari")
    made = Settings(home=tmp_path / "home", features=[folder], shipped_features=False, base=str(tmp_path / "base"))
    return Factory(made)


def again(factory: Factory) -> Factory:
    """The factory as another process opens it."""
    return Factory(factory.settings)


def decide(factory: Factory, action: Action, feature: str = "edit") -> None:
    made = Decision(
        feature=feature,
        base_release=digest("release"),
        action=action,
        version=1,
        package=digest("package"),
        actor="ann",
        reason="test",
    )
    factory.ledger.append(made)


def names(events: list[Event]) -> list[str]:
    return [f"{event.name} {event.subject}" for event in events]


def test_changes_are_noticed_whoever_made_them(factory: Factory) -> None:
    decide(factory, "promote")
    assert observe(factory, ["edit"]) == [], "what is there at first is no change"
    assert observe(again(factory), ["edit"]) == []
    decide(factory, "roll back")
    decide(factory, "release hold")
    decide(factory, "promote", "base")
    assert sorted(names(observe(again(factory), ["edit"]))) == [
        "adapter.released edit",
        "adapter.rolled-back edit",
        "base-release.registered base",
    ]
    folder = factory.feature("edit").folder
    rows = read_rows(folder)
    write_rows(folder, rows[:-1])
    assert names(observe(again(factory), ["edit"])) == ["dataset.versioned edit"]
    recipe = folder / "recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("epochs: 1", "epochs: 2"), "utf-8")
    assert names(observe(again(factory), ["edit"])) == ["recipe.changed edit"]
    recipe.write_text(recipe.read_text("utf-8").replace("value: 1000.0", "value: 999.0"), "utf-8")
    assert names(observe(again(factory), ["edit"])) == ["evaluation.changed edit"]
    assert observe(again(factory), ["edit"]) == []
    assert len(outbox_of(factory).waiting()) == 6


def test_the_first_decision_of_a_new_workspace_is_told(factory: Factory) -> None:
    assert observe(factory, ()) == []
    decide(factory, "promote")
    assert names(observe(factory, ())) == ["adapter.promoted edit"]


def test_an_announced_base_is_wanted_until_the_base_was_decided_about(factory: Factory) -> None:
    assert announced_base(factory) is None
    announce_base(factory, "hf://org/name")
    wanted = announced_base(again(factory))
    assert wanted is not None and wanted.source == "hf://org/name"
    decide(factory, "promote", "base")
    assert announced_base(factory) is None, "whoever decided about the base knew better"
    announce_base(factory, "hf://org/name")
    announce_base(factory, "hf://org/newer")
    settle_base(factory, wanted)
    latest = announced_base(factory)
    assert latest is not None and latest.source == "hf://org/newer"
    settle_base(factory, latest)
    assert announced_base(factory) is None
    assert [one.event.subject for one in outbox_of(factory).waiting()] == 2 * ["hf://org/name"] + ["hf://org/newer"]


@contextmanager
def api(status: int, refused: str = "nothing") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What stands where Prefect's server should: answers every post with a status, and keeps what it gets.

    A post with an event about `refused` is not taken.
    """
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The client asks for a token, which a server may not have."""
            self.answer(404)

        def do_POST(self) -> None:
            events = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if any(one["resource"]["prefect.resource.name"] == refused for one in events):
                self.answer(422)
            else:
                got.extend(events)
                self.answer(status)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/api", got
    server.shutdown()
    server.server_close()


def test_events_wait_for_a_server_that_is_away(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    announce_base(factory, "hf://org/name")
    assert send(factory) == 1, "no server is set"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("prefect.client.orchestration.get_client", client_of("http://127.0.0.1:9/api"))
    assert send(factory) == 1
    with api(503) as (url, refused):
        monkeypatch.setattr("prefect.client.orchestration.get_client", client_of(url))
        assert send(factory) == 1
    announce_base(factory, "hf://org/newer")
    with api(204) as (url, got):
        monkeypatch.setattr("prefect.client.orchestration.get_client", client_of(url))
        assert send(factory) == 0
        assert send(factory) == 0
    assert [one["resource"]["prefect.resource.name"] for one in got] == ["hf://org/name", "hf://org/newer"]
    assert {one["event"] for one in got} == {"factory.base-model.changed"}
    assert got[0]["id"] == refused[0]["id"], "sent again it is the same event"


def test_an_event_that_is_refused_holds_up_none(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    for name in ("one", "bad", "two"):
        announce_base(factory, f"hf://org/{name}")
    with api(401) as (url, _):
        monkeypatch.setattr("prefect.client.orchestration.get_client", client_of(url))
        assert send(factory) == 3
    told = capsys.readouterr().err
    assert "answers 401" in told and "PREFECT_API_AUTH_STRING" in told and "away" not in told
    with api(204, refused="hf://org/bad") as (url, got):
        monkeypatch.setattr("prefect.client.orchestration.get_client", client_of(url))
        assert send(factory) == 0
    assert [one["resource"]["prefect.resource.name"] for one in got] == ["hf://org/one", "hf://org/two"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "base-model.changed hf://org/bad" in told and "422" in told


def client_of(url: str) -> Any:
    """Prefect's client of another address: Prefect reads its own settings once a process."""
    from prefect.client.orchestration import SyncPrefectClient

    return lambda sync_client, httpx_settings: SyncPrefectClient(url, httpx_settings=httpx_settings)
