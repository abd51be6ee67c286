"""What adapters are worth on real text: trained by the features' recipes on `shared/data`, tested on what is held out.

For each task four systems answer the same items: the base release of the settings' profile with its recovery adapter,
its uncompressed base, and each of the two with an adapter trained over it. Beside them stand systems without a model.
Intervals are those that gates decide by: a paired bootstrap of 95%, whole documents drawn.
"""

from dataclasses import dataclass
from pathlib import Path

from adapters.evaluation.answers import ANSWERS, read_answers
from adapters.evaluation.comparison import Comparisons
from adapters.evaluation.items import read_items
from adapters.evaluation.scores import WHOLE, Scores, score
from adapters.evaluation.trivial import trivial_answers
from adapters.inference.types import Answer
from adapters.records import read_records
from tests.benchmarks.common import Figure
from tests.benchmarks.feature_systems import Systems
from tests.benchmarks.feature_tasks import TASKS, Task

# The two systems of each comparison; `trivial` is the best of those without a model.
COMPARED = (
    ("adapter", "base"),
    ("adapter", "trivial"),
    ("adapter", "uncompressed_adapter"),
    ("uncompressed_adapter", "uncompressed"),
    ("uncompressed_adapter", "trivial"),
)


@dataclass(frozen=True)
class Answered:
    """A task's data and, by system, the folder of its answers."""

    task: Task
    data: Path
    folders: dict[str, Path]


def run() -> list[Figure]:
    """Per task its items and training records, and per metric each comparison with the bounds of its difference."""
    systems = Systems()
    return [figure for task in TASKS for figure in figures(answered(systems, task))]


def answered(systems: Systems, task: Task) -> Answered:
    """Train what a task needs, and let all systems answer."""
    recipe = task.recipe
    data = systems.build(task.data(), f"{task.name}: data")
    folders = {}
    for name, side in (("base", systems.release), ("uncompressed", systems.uncompressed)):
        adapter = systems.adapter(side, recipe, data, task.name)
        trained = "adapter" if name == "base" else "uncompressed_adapter"
        folders[name] = systems.answers(side, None, recipe, data, task.name)
        folders[trained] = systems.answers(side, adapter, recipe, data, task.name)
    return Answered(task, data.path, folders)


def figures(found: Answered) -> list[Figure]:
    """A task's figures. `ratio` is one score over the other; `…_low` and `…_high` bound their difference.

    `…_detectable` is the smallest true difference between the two adapters that such a test sees in four of five cases.
    """
    task, recipe = found.task, found.task.recipe
    items = read_items(recipe, found.data / "held_out.jsonl")
    without_model = {
        name: score(recipe, items, [Answer(text, 0, 0.0, True) for text in texts])
        for name, texts in trivial_answers(recipe.evaluation.metric, items).items()
    }
    scores = {
        name: score(recipe, items, read_answers(folder / ANSWERS, items)) for name, folder in found.folders.items()
    }
    comparisons = Comparisons(items)
    trained_on = read_records(found.data / "training.jsonl")[0]
    made = [
        Figure(f"{task.name}_items", "records", len(items)),
        Figure(f"{task.name}_trained_on", "records", len(trained_on)),
    ]
    for metric in task.metrics:
        best = max(without_model.values(), key=lambda one: one.values[metric][WHOLE])
        of = scores | {"trivial": best}
        for one, other in COMPARED:
            made += _compared(f"{task.name}_{metric}_{one}_vs_{other}", comparisons, of[one], of[other], metric)
    return made


def _compared(name: str, comparisons: Comparisons, one: Scores, other: Scores, metric: str) -> list[Figure]:
    ours, theirs = one.values[metric][WHOLE], other.values[metric][WHOLE]
    difference = comparisons.differences(one, other, metric)[WHOLE]
    return [
        Figure(name, "score", ours, theirs, ours / theirs if theirs else None),
        Figure(f"{name}_low", "difference", difference.interval.low),
        Figure(f"{name}_high", "difference", difference.interval.high),
        Figure(f"{name}_detectable", "difference", difference.detectable),
    ]
