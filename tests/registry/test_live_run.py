"""A training's curves in MLflow while it goes: they arrive, go on after a kill, and never hold it up."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import live_run
from registry.catalog import Catalog, RunContent
from registry.live_run import TRAINING, LiveRun
from tests.registry.conftest import Place

pytestmark = pytest.mark.servers
KEY = "ab" * 32


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Lets points be sent at once; is released whenever some were."""
    happened = threading.Semaphore(0)
    send = LiveRun._send

    def watched(run: LiveRun, over: bool) -> None:
        told = bool(run._waiting)
        send(run, over)
        if told:
            happened.release()

    monkeypatch.setattr(live_run, "_SECONDS_BETWEEN", 0.01)
    monkeypatch.setattr(LiveRun, "_send", watched)
    yield happened


def history(place: Place, run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(place).get_metric_history(run_id, metric)]


def client(place: Place) -> Any:
    import mlflow

    return mlflow.tracking.MlflowClient(tracking_uri=place.uri)


def runs(place: Place) -> list[Any]:
    mlflow = client(place)
    return list(mlflow.search_runs([mlflow.get_experiment_by_name("brief").experiment_id]))


def test_points_arrive_while_a_training_goes_and_its_run_is_the_one_that_is_logged(
    place: Place, sent: threading.Semaphore
) -> None:
    catalog = place.registry.catalog
    with catalog.live_run("brief", "brief abab", KEY) as live:
        live.point(0, {"loss": 2.0, "held_out_loss": 2.5})
        assert sent.acquire(timeout=30)
        (run,) = runs(place)
        assert run.info.status == "RUNNING" and history(place, run.info.run_id, "loss") == [(0, 2.0)]
        live.point(1, {"loss": 1.5})
    (run,) = runs(place)
    assert run.info.status == "FINISHED" and run.data.metrics == {"loss": 1.5, "held_out_loss": 2.5}
    content = RunContent(metrics={"score": 0.5}, series={"loss": [(0, 2.0), (1, 1.5), (2, 1.0)]})
    assert catalog.log_run("brief", "brief abab", content, KEY) == run.info.run_id
    assert history(place, run.info.run_id, "loss") == [(0, 2.0), (1, 1.5), (2, 1.0)], "only what it lacked"
    (run,) = runs(place)
    assert TRAINING not in run.data.tags and run.info.status == "FINISHED"
    # What comes of the same training once more, in another package for instance, is another run.
    assert catalog.log_run("brief", "brief abab", content, KEY) != run.info.run_id


def test_a_training_that_goes_on_after_a_kill_goes_on_in_its_run(place: Place, sent: threading.Semaphore) -> None:
    killed = place.registry.catalog.live_run("brief", "brief abab", KEY)
    for step, loss in enumerate((2.0, 1.5)):
        killed.point(step, {"loss": loss})
    killed._send(over=False)  # and nothing after it
    with place.registry.catalog.live_run("brief", "brief abab", KEY) as live:
        live.point(1, {"loss": 1.5})  # the step after the checkpoint, once more
        live.point(2, {"loss": 1.0})
    (run,) = runs(place)
    assert history(place, run.info.run_id, "loss") == [(0, 2.0), (1, 1.5), (2, 1.0)]


def test_a_training_that_failed_is_a_failed_run(place: Place, sent: threading.Semaphore) -> None:
    with pytest.raises(ValueError, match="not finite"), place.registry.catalog.live_run("brief", "brief", KEY) as live:
        live.point(0, {"loss": 2.0})
        raise ValueError("not finite")
    assert [run.info.status for run in runs(place)] == ["FAILED"]


@pytest.mark.parametrize("answers", [False, True])
def test_an_mlflow_that_is_away_holds_nothing_up(
    tmp_path: Path, sent: threading.Semaphore, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Refused at once, or taken and never answered."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(live_run, "_SECONDS_AT_END", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if answers:
            silent.listen()
        catalog = Catalog(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path.as_uri(), tmp_path)
        started = time.monotonic()
        with catalog.live_run("brief", "brief abab", KEY) as live:
            for step in range(100):
                live.point(step, {"loss": 1.0})
        assert time.monotonic() - started < 2
        live._thread.join(10)
        assert not live._thread.is_alive()
