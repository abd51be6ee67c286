"""The simulation behind docs/scale.md: bounds that any schedule keeps, and the document's figures."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli.main import app
from tests.benchmarks.bench_scale import (
    FEATURE_MINUTES,
    PUBLICATION_SECONDS,
    RELEASE_MINUTES,
    all_stale,
    longest_queue,
    simulate,
)

ROOT = Path(__file__).parents[1]
JOBS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 10)), min_size=1, max_size=40)


@given(JOBS, st.integers(1, 8), st.floats(0.001, 1))
def test_no_schedule_is_better_than_its_bounds(
    jobs: list[tuple[float, float]], workers: int, publication: float
) -> None:
    found = simulate(jobs, workers, publication)
    first = min(ready for ready, _ in jobs)
    work = sum(minutes for _, minutes in jobs)
    longest = max(ready + minutes for ready, minutes in jobs) + publication
    assert found.minutes >= max(longest, first + work / workers, first + publication * len(jobs)) - 1e-9
    assert found.minutes <= max(ready for ready, _ in jobs) + work + publication * len(jobs) + 1e-9
    assert len(found.latencies) == len(jobs) and found.queue < len(jobs) + 1
    assert simulate(jobs, workers + 1, publication).queue <= found.queue


def test_a_schedule_by_hand() -> None:
    """Two workers, three jobs of ten minutes, publications of one: one waits for a worker, one to be published."""
    found = simulate([(0, 10), (0, 10), (0, 10)], 2, 1)
    assert (found.minutes, sorted(found.latencies)) == (21, [11, 12, 21])
    assert (found.queue, found.publishing_queue) == (1, 1)
    assert longest_queue([(0, 5), (5, 6), (5, 7), (1, 1)]) == 2


def test_stage_times_are_the_measured_ones() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    for name, stages in FEATURE_MINUTES.items():
        (row,) = re.findall(rf"^\| {name} \| (\S+) \| (\S+) \| (\S+) \| \S+ \| (\S+) \|", text, flags=re.MULTILINE)
        assert tuple(0.0 if cell == "–" else float(cell) for cell in row) == stages
    section = text.split("| base release | minutes |")[1].split("\n\n")[0]
    minutes = [float(value) for value in re.findall(r"\| ([\d.]+) \|$", section, flags=re.MULTILINE)]
    assert minutes == [*RELEASE_MINUTES, 0.0]
    (publication,) = re.findall(r"^\| `promote_seconds` \| CPU-s \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    assert float(publication) == PUBLICATION_SECONDS
    assert f"(`promote_seconds`) | {publication} CPU-seconds |" in (ROOT / "docs/scale.md").read_text("utf-8")


@pytest.mark.parametrize("document", ["docs/scale.md"])
def test_figures_of_the_document_are_those_of_the_bench(document: str) -> None:
    done = CliRunner().invoke(app, ["bench", "scale", "--json"], catch_exceptions=False)
    figures = {one["name"]: one["ours"] for one in json.loads(done.stdout)["figures"]}
    text = (ROOT / document).read_text("utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d.,]+) \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 12
    for cells in rows:
        features, workers, hours, queue, publishing = (float(cell.replace(",", "")) for cell in cells)
        name = f"all_stale_{features:.0f}_on_{workers:.0f}"
        assert hours == pytest.approx(figures[f"{name}_hours"], abs=0.051)
        assert (queue, publishing) == (figures[f"{name}_queue"], figures[f"{name}_publishing_queue"])
    for features, core_hours in re.findall(r"^\| ([\d,]+) \| ([\d.,]+) core-hours \|", text, flags=re.MULTILINE):
        name = f"all_stale_{features.replace(',', '')}_core_hours"
        assert float(core_hours.replace(",", "")) == pytest.approx(figures[name], rel=0.01)
    assert f"about {round(figures['workers_that_one_publisher_keeps_up_with'], -1):.0f} workers" in text
    assert len(all_stale(3)) == 3
