"""What orchestration costs: the time of a retrain that is no stage's own work, and a run that has nothing to do.

In a new workspace, with the settings of the folder that it is started in: the base release is made first and not
counted; then `factory run FEATURE`, of the first feature with all stages, is timed from outside, from the start of its
process to its end: interpreter and imports, Prefect's own server, inputs, keys and digests, DVC, MLflow, ledger,
channel. What the outcome names as stages' seconds is taken off. Then the same command three times, from a cold start.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.errors import FactoryError
from infra.settings import load_settings
from registry.features import find_features
from tests.benchmarks.common import ROOT, Figure


def run() -> list[Figure]:
    """One retrain, and the median of three runs with nothing to do."""
    settings = load_settings()
    features = find_features(settings.features, settings.shipped_features, settings.profile)
    feature = next((name for name, one in features.items() if one.recipe.synthesis), next(iter(features)))
    with tempfile.TemporaryDirectory() as home:
        _factory(Path(home), "base", "release")
        seconds, ran = _factory(Path(home), "run", feature)
        idle = sorted(_factory(Path(home), "run", feature)[0] for _ in range(3))[1]
    (outcome,) = ran["outcomes"]
    stages = sum(outcome["seconds"].values())
    return [
        Figure("overhead_share", "of 1", (seconds - stages) / seconds),
        Figure("overhead_seconds", "s", seconds - stages),
        Figure("stages_seconds", "s", stages),
        Figure("nothing_to_do_seconds", "s", idle),
    ]


def _factory(home: Path, *arguments: str) -> tuple[float, Any]:
    """A command's seconds, and what it prints. A gate that says no ends a run as well as one that passes."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
    command = [sys.executable, "-m", "flows.cli.main", *arguments, "--json"]
    started = time.monotonic()
    done = subprocess.run(
        command,
        env=environment | {"FACTORY_HOME": str(home), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout:
        raise FactoryError(f"factory {' '.join(arguments)} ended with {done.returncode}; see above")
    return time.monotonic() - started, json.loads(done.stdout)
