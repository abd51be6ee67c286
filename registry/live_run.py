"""The curves of a training that is under way, in MLflow.

A thread of its own sends them: an MLflow that is slow or away holds no training up. What it could not send is logged
with the rest when the training is over (`Catalog.log_run`), in the same run.
"""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from infra.progress import console
from registry.mlflow_store import MlflowStore

if TYPE_CHECKING:
    from mlflow.entities import Metric

# By this tag the run of a training is found again, until what came of it is logged.
TRAINING = "training"
_SECONDS_BETWEEN = 5.0
# How long the end of a training waits for the last points; what is sent later, or never, does no harm.
_SECONDS_AT_END = 5.0


class LiveRun:
    """A run of an experiment that takes points while a `with` block runs; it ends as finished or failed with the block.

    The run is made with the first point. A training that goes on after a kill goes on in the run of before, which is
    known by `key`; a step that is done again is not told again.
    """

    def __init__(self, store: MlflowStore, experiment: str, name: str, key: str) -> None:
        self._store = store
        self._experiment, self._name, self._key = experiment, name, key
        self._waiting: list[Metric] = []
        self._run_id: str | None = None
        self._known: dict[str, set[int]] = {}
        self._status = "FINISHED"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send_until_over, name="mlflow", daemon=True)

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values of a step; returns at once."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]

    def __enter__(self) -> "LiveRun":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status = "FINISHED" if kind is None else "FAILED"
        self._over.set()
        self._thread.join(_SECONDS_AT_END)

    def _send_until_over(self) -> None:
        told = over = False
        while not over:
            over = self._over.wait(_SECONDS_BETWEEN)
            try:
                self._send(over)
            except Exception as error:  # whatever it is, the training goes on
                if not told:
                    line = f"  {self._name}: the curves come when it is over: {error}"
                    console.print(line, highlight=False, markup=False)
                told = True

    def _send(self, over: bool) -> None:
        count = len(self._waiting)
        if count:
            run_id = self._run_id = self._run_id or self._open()
            points = [point for point in self._waiting[:count] if self._is_new(run_id, point)]
            with self._store.client() as client:
                client.log_batch(run_id, metrics=points)
            del self._waiting[:count]
        if over and self._run_id:
            with self._store.client() as client:
                client.set_terminated(self._run_id, self._status)

    def _open(self) -> str:
        found = self._store.find_run(self._experiment, TRAINING, self._key)
        if found is None:
            return self._store.new_run(self._experiment, self._name, {TRAINING: self._key})
        with self._store.client() as client:
            client.update_run(found, status="RUNNING")
        return found

    def _is_new(self, run_id: str, point: "Metric") -> bool:
        if point.key not in self._known:
            self._known[point.key] = self._store.logged_steps(run_id, point.key)
        return point.step not in self._known[point.key]
