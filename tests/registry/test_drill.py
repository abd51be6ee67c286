"""The drill: a real process is killed between every two steps of promote and rollback, and the next command repairs."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.promotion import promote
from tests.registry.conftest import Place
from tests.registry.decider import FEATURE, WHO, Decider, Killed

pytestmark = pytest.mark.servers
# Each decides about something, so each must first repair what the killed process left.
NEXT: list[tuple[str, dict[str, Any]]] = [("again", {}), ("base_again", {}), ("repair", {})]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, open_place: Callable[[Path], Place]) -> Path:
    """A registry with version 1 in production, 2 tested against it, and 3 that failed."""
    place = open_place(tmp_path_factory.mktemp("drill") / "template")
    release = place.release()
    place.version(release)
    promote(place.registry, FEATURE, 1, **WHO)
    place.version(release, "two")
    place.version(release, "three", passed=False)
    return place.folder


def copy_of(template: Path, folder: Path) -> Path:
    """A copy that changes alone; packages are read from where they were registered."""
    folder.mkdir(parents=True)
    for name in ("ledger.db", "mlflow.db"):
        shutil.copyfile(template / name, folder / name)
    for name in ("channel", "keys"):
        shutil.copytree(template / name, folder / name)
    return folder


@contextmanager
def decider(folder: Path, url: str = "") -> Iterator[Decider]:
    process = Decider(folder, url)
    try:
        yield process
    finally:
        process.stop()


def require_agreement(state: dict[str, Any]) -> None:
    """Ledger, alias and channel name one version, and no row was lost, doubled or changed."""
    assert state["ledger"] == state["alias"] == state["channel"]
    assert state["follows"]
    assert (state["findings"], state["unfinished"]) == ([], [])
    assert [row[0] for row in state["rows"]] == list(range(1, len(state["rows"]) + 1))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("operation", ["promote", "rollback"])
def test_killed_between_any_two_steps_the_next_command_repairs(
    template: Path, tmp_path: Path, operation: str, every: int
) -> None:
    arguments = {"version": 2} if operation == "promote" else {}
    before = tmp_path / "before"
    with decider(copy_of(template, before)) as process:
        if operation == "rollback":
            process.ask("promote", version=2)
    with decider(copy_of(before, tmp_path / "whole")) as process:
        process.ask(operation, **arguments)
        steps = process.steps
        after = process.ask("state")
        require_agreement(after)
    assert steps >= (8 if operation == "promote" else 3), "the ledger's row, an alias, files of the channel"
    reached = set()
    for step in range(1, steps + 1, every):
        folder = copy_of(before, tmp_path / f"killed-{step}")
        with decider(folder) as process, pytest.raises(Killed):
            process.ask(operation, die_before=step, **arguments)
        with decider(folder) as process:
            rows = process.ask("state")["rows"]
            decided = len(rows) == len(after["rows"])
            reached.add(decided)
            command, more = NEXT[step % len(NEXT)]
            if command == "again":
                # A rollback that stands already would go back one more, if there were something to go back to.
                command, more = (operation, arguments) if operation == "promote" or not decided else NEXT[1]
            process.ask(command, **more)
            state = process.ask("state")
            require_agreement(state)
            expected = after["ledger"] if decided or command == operation else rows_version(rows)
            assert state["ledger"] == expected
            assert process.ask("repair") == []
    assert reached == {True, False}


def rows_version(rows: list[tuple[int, str, int, int | None]]) -> int:
    """The version that the last move put in production."""
    return [version for _, action, version, _ in rows if action in ("promote", "roll back")][-1]
