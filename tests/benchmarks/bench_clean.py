"""CPU-seconds and memory that cleaning takes at 10,000, 30,000 and 100,000 records: linear in time, below 2 GB.

Records are made of the shipped corpora's sentences, shuffled between records: at 100,000 each sentence stands in a
hundred of them, which is hard on the search for overlap (and what is held out goes, as it should). One record in ten is
nearly repeated, one in a hundred has an address in it. Each size runs in a process of its own, whose peak memory is
measured: reading the JSONL file, every step that recipes have by default, the Great Expectations checkpoints, writing.
"""

import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from adapters.records import Record, read_records, write_records
from tests.benchmarks.common import ROOT, Figure

SIZES = (10_000, 30_000, 100_000)
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


def run() -> list[Figure]:
    """CPU-seconds and peak memory at each size, and the growth of time over that of records (1: linear)."""
    figures = []
    seconds = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_records(Path(folder) / "records.jsonl", made(size))
            command = [sys.executable, "-m", "tests.benchmarks.bench_clean", folder]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        seconds[size] = measured["seconds"]
        thousands = f"{size // 1000}k"
        figures += [
            Figure(f"seconds_{thousands}", "CPU-s", measured["seconds"]),
            Figure(f"peak_{thousands}", "MB", measured["peak_mb"]),
            Figure(f"removed_{thousands}", "records", measured["removed"]),
        ]
    first, last = SIZES[0], SIZES[-1]
    growth = (seconds[last] / seconds[first]) / (last / first)
    return [*figures, Figure("growth_of_time_over_records", "ratio", growth)]


def made(count: int, seed: int = 0) -> list[Record]:
    """`count` records of several sentences, of which a tenth nearly repeat the one before them."""
    chance = random.Random(seed)
    shipped = sorted((ROOT / "adapters" / "features").glob("*/corpus/*.jsonl"))
    texts = [record.input for path in shipped for record in read_records(path)[0]]
    sentences = sorted({part for text in texts for part in _SENTENCES.split(text) if 3 <= len(part.split()) <= 40})
    records: list[Record] = []
    for number in range(count):
        if records and chance.random() < 0.1:
            text = f"{records[-1].input} {number}"
        else:
            text = " ".join(chance.sample(sentences, chance.randint(3, 8)))
            if chance.random() < 0.01:
                text += f" Write to person{number}@example.org."
        target = " ".join(text.split()[:12])
        fields = {"use_case": "email", "source": "bench", "license": "Apache-2.0"}
        records.append(Record(id=f"r-{number:06}", input=text, target=target, **fields))
    return records


def measure(folder: Path) -> dict[str, float]:
    """Clean the records in a folder, as the data stage does; CPU-seconds, peak memory in 10⁶ bytes, records removed."""
    from adapters.data.prepare import prepare
    from adapters.recipe import load_recipe

    started = time.process_time()
    records, refused = read_records(folder / "records.jsonl")
    recipe = load_recipe(ROOT / "adapters" / "features" / "summarization")
    use_cases = {"email": recipe.data.use_cases["email"].model_copy(update={"target_words": (1, 40)})}
    data = recipe.data.model_copy(update={"use_cases": use_cases, "max_quarantined_share": 1.0})
    output, scratch = folder / "output", folder / "scratch"
    output.mkdir()
    scratch.mkdir()
    prepare(recipe.model_copy(update={"data": data}), records, refused, output, scratch)
    seconds = time.process_time() - started
    report = json.loads((output / "report.json").read_text("utf-8"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts it in units of 1,024 bytes
    return {"seconds": seconds, "peak_mb": peak * 1.024, "removed": report["removed"]}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
