"""Processes that decide about a registry's production, and die at the step that they are told to.

A step is whatever outlives the process: a commit in ledger or MLflow that writes, a folder that is made, a file that is
copied or opened for writing, a rename. Being killed before step n is being killed between steps n - 1 and n.

Processes come from a fork server that has imported MLflow, so that one costs a fork.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (imported once, by the fork server)
import sqlalchemy as sa
from mlflow.tracking import MlflowClient

from infra.errors import FactoryError
from registry import projection, promotion
from registry.catalog import Catalog, RunContent
from registry.channel import open_channel
from registry.ledger import Ledger
from registry.projection import Registry
from tests.registry.samples import ACTOR, make_report

FEATURE = "summarization"
WHO = {"actor": ACTOR, "reason": "drill"}
_FILE_STEPS = ("os.rename", "os.mkdir", "os.remove", "shutil.copyfile")
_WRITES = ("INSERT", "UPDATE", "DELETE")


class Killed(Exception):
    """The process died at the step that it was told to."""


class Decider:
    """One process over the registry in a folder; `ask` makes it do something and gives back what it answers."""

    def __init__(self, folder: Path, url: str = "") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(folder), url), daemon=True)
        self._process.start()
        theirs.close()
        self.steps = 0

    def ask(self, operation: str, die_before: int | None = None, **arguments: Any) -> Any:
        """Do an operation and return its answer.

        Raises:
            Killed: the process died before step `die_before`.
            FactoryError: what the operation raised.
        """
        self.start(operation, die_before, **arguments)
        return self.answer()

    def start(self, operation: str, die_before: int | None = None, **arguments: Any) -> None:
        """Begin an operation; `answer` waits for it."""
        self._connection.send((operation, die_before, arguments))

    def answer(self) -> Any:
        """What the operation that was started gave."""
        try:
            answer, error, self.steps = self._connection.recv()
        except EOFError:
            self._process.join()
            assert self._process.exitcode == -signal.SIGKILL
            raise Killed from None
        if error is not None:
            raise FactoryError(error)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


class _Steps:
    """Counts steps of one operation, and dies before the one that is named."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.count, self.die_before = 0, 0
        sys.addaudithook(self._audited)
        sa.event.listen(sa.Engine, "before_cursor_execute", self._executed)
        sa.event.listen(sa.Engine, "commit", self._committing)

    def begin(self, die_before: int | None) -> None:
        self.count, self.die_before = 0, die_before or 0

    def _step(self) -> None:
        self.count += 1
        if self.count == self.die_before:
            os.kill(os.getpid(), signal.SIGKILL)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (writing or event in _FILE_STEPS) and str(arguments[0]).startswith(self._folder):
            self._step()

    def _executed(self, connection: sa.Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(_WRITES):
            connection.info["writes"] = True

    def _committing(self, connection: sa.Connection) -> None:
        if connection.info.pop("writes", False):
            self._step()


def _serve(connection: Connection, folder: str, url: str) -> None:
    place = Path(folder)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    channel = open_channel(place / "channel", place / "keys")
    registry = Registry(
        Ledger(url or f"sqlite:///{place / 'ledger.db'}"),
        Catalog(uri, (place / "files").resolve().as_uri(), place / "downloads"),
        channel,
    )
    registry.catalog.releases()  # opens MLflow
    steps = _Steps(folder)
    while True:
        try:
            operation, die_before, arguments = connection.recv()
        except EOFError:
            return
        steps.begin(die_before)
        try:
            answer, error = _OPERATIONS[operation](registry, uri, **arguments), None
        except FactoryError as problem:
            answer, error = None, str(problem)
        connection.send((answer, error, steps.count))


def _promote(registry: Registry, _uri: str, version: int, force: bool = False) -> int:
    return promotion.promote(registry, FEATURE, version, force=force, **WHO).number


def _rollback(registry: Registry, _uri: str, to: int | None = None) -> int:
    return promotion.rollback(registry, FEATURE, to=to, **WHO).number


def _release_hold(registry: Registry, _uri: str) -> int:
    return promotion.release_hold(registry, FEATURE, **WHO)[-1].number


def _evaluate(registry: Registry, _uri: str, version: int, passed: bool = True) -> None:
    """Test a version again, against what is in production now."""
    from registry import decisions

    known = registry.catalog.version(FEATURE, version)
    champion = decisions.champion(registry.ledger.rows(FEATURE), known.base_release, version)
    run = registry.catalog.log_run(FEATURE, "again", RunContent())
    package = champion.package if champion else None
    registry.catalog.record_evaluation(known, run, known.lineage, make_report(passed=passed), package)


def _repair(registry: Registry, _uri: str) -> list[str]:
    return projection.repair_from_ledger(registry)


def _base_again(registry: Registry, _uri: str) -> int:
    current = registry.ledger.current_release()
    assert current is not None
    return promotion.promote_release(registry, current.base_release, **WHO).number


def _state(registry: Registry, uri: str) -> dict[str, Any]:
    """What ledger, aliases and channel say is in production for the current base release."""
    current = registry.ledger.current_release()
    assert current is not None
    row = registry.ledger.production(FEATURE, current.base_release)
    pointer = registry.channel.pointer(FEATURE, current.base_release)
    aliases = MlflowClient(tracking_uri=uri).get_registered_model(f"adapter-{FEATURE}").aliases
    return {
        "ledger": row.version if row else None,
        "alias": int(aliases["production"]) if "production" in aliases else None,
        "channel": pointer.version if pointer else None,
        "follows": [pointer.number, pointer.row] == [row.number, row.hash] if row and pointer else row is pointer,
        "findings": [str(finding) for finding in projection.verify(registry)],
        "unfinished": projection.unfinished(registry),
        "rows": [(one.number, one.action, one.version, one.replaced) for one in registry.ledger.rows(FEATURE)],
    }


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "promote": _promote,
    "rollback": _rollback,
    "release_hold": _release_hold,
    "evaluate": _evaluate,
    "repair": _repair,
    "base_again": _base_again,
    "state": _state,
}
