"""`factory up`, `status` and `down` with the real servers, which are killed while the stack does a change by itself."""

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.line import factory, factory_json, make_project, read_rows, write_rows

pytestmark = [pytest.mark.servers, pytest.mark.slow]

_PATIENCE_SECONDS = 900.0


def health(found: dict[str, Any]) -> dict[str, bool]:
    return {one["name"]: one["healthy"] for one in found["services"]}


def until(condition: Callable[[], bool]) -> None:
    """Look every second, as people would, until it is so."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)


def kill(found: dict[str, Any], name: str) -> None:
    """Kill a service and whatever it started."""
    (service,) = [one for one in found["services"] if one["name"] == name]
    process = psutil.Process(service["pid"])
    for one in [*process.children(recursive=True), process]:
        one.kill()


def flow_runs(prefect: str) -> list[dict[str, Any]]:
    """What Prefect's server knows of runs."""
    request = urllib.request.Request(f"{prefect}/flow_runs/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return list(json.load(answer))


def test_the_stack_does_what_changed_by_itself_though_its_servers_are_killed(tmp_path: Path) -> None:
    project = make_project(tmp_path)

    def versions() -> dict[str, int | None]:
        return {one["feature"]: one["production"] for one in factory_json(project, "registry", "list")}

    assert factory_json(project, "status", code=1) == {"up": False, "services": []}
    factory(project, "run", timeout=900)  # without servers: everything is in the workspace's own databases
    rows = read_rows(project / "features/edit")
    write_rows(project / "features/edit", [row | {"target": row["target"] + " soon"} for row in rows])
    try:
        up = factory_json(project, "up", timeout=900)
        assert health(up) == {"prefect": True, "mlflow": True, "worker": True, "triggers": True}
        again = factory_json(project, "up")
        assert [one["pid"] for one in again["services"]] == [one["pid"] for one in up["services"]]
        prefect = up["services"][0]["health"].removesuffix("/health")
        until(lambda: bool(flow_runs(prefect)))
        kill(up, "prefect")
        kill(up, "mlflow")
        until(lambda: versions() == {"brief": 1, "edit": 2, "rank": 1})
        until(lambda: all(health(factory_json(project, "status", code=0)).values()))
        assert "retrain edit" in {run["name"] for run in flow_runs(prefect)}
    finally:
        assert factory_json(project, "down", timeout=120) == {"ended": True}
    assert not any(psutil.pid_exists(one["pid"]) for one in up["services"])
    assert {one["state"] for one in factory_json(project, "plan")["features"]} == {"fresh"}
    assert factory_json(project, "registry", "show", "edit", "2")["gate_report"]["gates"]
    assert factory_json(project, "ledger", "verify")["whole"]
