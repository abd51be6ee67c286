"""A whole run on a disk that fills up."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flows.line import ROOT, make_project

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.mark.parametrize("megabytes", [12, 26])  # full before the run begins, and in the middle: it takes 37
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmp_path: Path, megabytes: int) -> None:
    project = make_project(tmp_path)
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.flows.small_disk"]
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("FACTORY_", "PREFECT_"))}
    done = subprocess.run(
        [*command, str(project), str(megabytes)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=ours | {"PYTHONPATH": str(ROOT)},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    first, second = found["first"], found["second"]
    assert first["code"] in (1, 2) and "Traceback" not in first["errors"]
    told = first["errors"] + json.dumps(first["answer"])
    assert "No space left on device" in told or "disk is full" in told
    assert found["half_written"] == []
    assert second["code"] == 0, second["errors"]
    assert {one["state"] for one in second["answer"]["plan"]["features"]} == {"fresh"}
