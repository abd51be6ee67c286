"""`factory up`, `status` and `down` with the real servers: commands use them while they are up, and need none before."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flows.line import factory, factory_json, make_project

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def health(found: dict[str, Any]) -> dict[str, bool]:
    return {one["name"]: one["healthy"] for one in found["services"]}


def post(url: str, body: object) -> Any:
    """A page's JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def test_runs_before_during_and_after_the_stack_see_each_other(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    assert factory_json(project, "status", code=1) == {"up": False, "services": []}
    factory(project, "run", "brief", timeout=900)  # no server: everything is in the workspace's own databases
    try:
        up = factory_json(project, "up", timeout=600)
        assert health(up) == {"prefect": True, "mlflow": True, "worker": True, "triggers": True}
        again = factory_json(project, "up")
        assert [one["pid"] for one in again["services"]] == [one["pid"] for one in up["services"]]
        factory(project, "doctor")
        factory(project, "run", timeout=900, code=_busy(project))
        addresses = {one["name"]: one["health"] for one in up["services"]}
        prefect = addresses["prefect"].removesuffix("/health")
        _kill(up, "mlflow")
        _kill(up, "prefect")
        _until_healthy(project)
        factory(project, "run", timeout=900, code=_busy(project))
        flows = post(f"{prefect}/flow_runs/filter", {})
        assert {"retrain brief", "retrain edit", "retrain rank"} <= {run["name"] for run in flows}
        assert {run["state_type"] for run in flows} == {"COMPLETED"}
    finally:
        assert factory_json(project, "down", timeout=120) == {"ended": True}
    assert not any(psutil.pid_exists(one["pid"]) for one in up["services"])
    shown = factory_json(project, "registry", "list")
    assert {one["feature"]: one["version"] for one in shown} == {"brief": 1, "edit": 1, "rank": 1}
    assert factory_json(project, "plan")["base"]["state"] == "fresh"
    factory(project, "doctor")
