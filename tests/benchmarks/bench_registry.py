"""The registry at size: what `factory plan`, `registry list` and `promote` work at 1,000 features of 50 versions.

Each figure is the work of a command from its first statement to its last, in CPU-seconds of its process, everything
read anew from files and databases, after it has imported what it needs and has opened MLflow once: that start is the
interpreter's and MLflow's, and takes the same at any size. On SQLite, and with the ledger on PostgreSQL (MLflow stays
on SQLite). `growth_…` compares with a quarter of the features: 1 is linear, less is better than that.
"""

import contextlib
import gc
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from adapters import code
from flows.cli import decide, registry
from flows.cli import run as run_commands
from infra.progress import console
from tests.benchmarks.common import Figure
from tests.benchmarks.registry_at_size import Place, make_place
from tests.servers import postgres_server

FEATURES, VERSIONS, ROUNDS = 1000, 50, 5


def run() -> list[Figure]:
    """Medians of five rounds."""
    os.environ.pop("FACTORY_HOME", None)  # each registry lies in a workspace of its own
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "postgres").mkdir()
        url = stack.enter_context(postgres_server(folder / "postgres"))
        console.print("  making the registries: some minutes")
        small = _measure(_place(folder / "small", FEATURES // 4))
        large = _measure(_place(folder / "large", FEATURES))
        shared = _measure(_place(folder / "shared", FEATURES, url))
    figures = [Figure(f"{command}_seconds", "CPU-s", seconds) for command, seconds in large.items()]
    figures += [Figure(f"{command}_seconds_postgresql", "CPU-s", seconds) for command, seconds in shared.items()]
    return figures + [Figure(f"growth_{command}", "×", large[command] / small[command] / 4) for command in large]


def _place(folder: Path, features: int, ledger_url: str = "") -> Place:
    folder.mkdir()
    return make_place(folder, features, VERSIONS, ledger_url)


def _measure(place: Place) -> dict[str, float]:
    """Seconds of each command in the folder of `place`."""
    with contextlib.chdir(place.folder):
        found = {
            "plan": _median(lambda _: run_commands.plan(json=True)),
            "list": _median(lambda _: registry.list_features(json=True)),
            "promote": _median(lambda n: decide.promote(place.first, place.promotable[n % 2], "bench", force=True)),
        }
    return found


def _median(command: Callable[[int], None]) -> float:
    seconds = []
    for number in range(ROUNDS + 1):  # the first one imports
        code.code_digest.cache_clear()
        code._read.cache_clear()
        gc.collect()
        gc.freeze()  # a command's own process does not hold what this one made and imported for the registries
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            command(number)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[1:])
