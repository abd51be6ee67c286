"""Memory and time of sensitivities and palettization, on random Llamas of three sizes; each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.common import ROOT, Figure

# Hidden width and layers: about 10, 40 and 134 million linear weights; SmolLM2-135M has 106 million.
SIZES = ((384, 6), (576, 11), (768, 21))
STEPS = ("sensitivities", "palettize")
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from adapters.palettization.calibration import write_calibration
from adapters.palettization.palettize import write_palettized
from adapters.palettization.formats import write_options
from adapters.palettization.recipe import load_release_recipe
from adapters.palettization.sensitivities import write_sensitivities
from infra.compute import Compute

recipe = load_release_recipe("full")
base, folder, step = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if step == "sensitivities":
    text = recipe.calibration.text.model_copy(update={"tokens": recipe.palettization.tokens})
    calibration = recipe.calibration.model_copy(update={"sampled_tokens": 0, "text": text})
    write_calibration(base, calibration, folder, Compute().dtype, "cpu")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before, started = peak(), time.perf_counter()
if step == "sensitivities":
    write_sensitivities(base, folder, recipe.sensitivities, folder, Compute().dtype, "cpu")
else:
    section = recipe.palettization
    (folder / "palettized").mkdir()
    write_options(base, folder, folder, section, folder, "cpu")
    write_palettized(base, folder, folder, section, folder / "palettized", "cpu", folder)
print(json.dumps([peak() - before, time.perf_counter() - started]))
"""


def run() -> list[Figure]:
    """For each size: peak memory above the process before it, by the base's fp32 size, and seconds by its weights."""
    from tests.tiny import make_tiny_base

    figures = []
    for hidden, layers in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            base = make_tiny_base(Path(scratch) / "base", hidden=hidden, layers=layers)
            size = (base / "model.safetensors").stat().st_size
            for step in STEPS:
                command = [sys.executable, "-c", MEASURE, str(base), scratch, step]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                memory, seconds = json.loads(done.stdout.splitlines()[-1])
                name = f"{size / 4e6:.0f}M"
                figures += [
                    Figure(f"{step}_memory_{name}", "share of fp32 size", memory / size),
                    Figure(f"{step}_seconds_{name}", "s per million weights", seconds / (size / 4e6)),
                ]
    return figures
