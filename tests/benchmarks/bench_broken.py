"""Whether gates stop adapters that were really trained on something broken, and let a sound retraining pass.

The task `dialogues` of `bench features`, over the same base release, with its adapter in production. Candidates are
trained as it was, on targets that were shuffled, on another feature's data, on targets half of which were corrupted, on
refusals; and on the same data with another seed. Each step is kept in the workspace: a stopped run goes on.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from adapters.evaluation.answers import ANSWERS, read_answers
from adapters.evaluation.gates import GateReport
from adapters.evaluation.items import read_items
from adapters.evaluation.judge import judge
from adapters.evaluation.scores import score
from adapters.evaluation.trivial import trivial_answers
from adapters.inference.types import Answer
from adapters.recipe import Recipe
from adapters.records import Record, read_records, write_records
from adapters.training.adapter import ADAPTER
from infra.progress import console
from infra.store import Built, Stage
from tests.benchmarks.common import Figure
from tests.benchmarks.corruptions import Summary, foreign_sentence, name_swapped, number_changed
from tests.benchmarks.feature_systems import Systems
from tests.benchmarks.feature_tasks import TASKS

REFUSAL = "I'm sorry, but I can't help with that."
_CORRUPTIONS = (number_changed, name_swapped, foreign_sentence)
_BY_NAME = {task.name: task for task in TASKS}


def run() -> list[Figure]:
    """By candidate, whether its gates passed, and each gate that it failed."""
    bench = Bench()
    return [figure for name, report in bench.reports().items() for figure in figures(name, report)]


def figures(name: str, report: GateReport) -> list[Figure]:
    """1 for a candidate that passed, and what each gate that it failed measured."""
    failed = [Figure(f"{name}.{gate.name}", "failed", gate.figure) for gate in report.failed]
    return [Figure(f"{name}_passed", "of 1", float(report.passed)), *failed]


def shuffled(records: Sequence[Record]) -> list[Record]:
    """Each record with the target of another one."""
    targets = [record.target for record in records]
    random.Random(0).shuffle(targets)
    return [record.model_copy(update={"target": target}) for record, target in zip(records, targets, strict=True)]


def half_corrupted(records: Sequence[Record]) -> list[Record]:
    """Every second record with a target that has another number, another name, or another document's sentence."""
    chance = random.Random(0)
    summaries = [Summary(record.input, record.targets[0]) for record in records]
    made = []
    for place, (record, summary) in enumerate(zip(records, summaries, strict=True)):
        changes = _CORRUPTIONS[place // 2 % len(_CORRUPTIONS) :]  # what has no number, or no name, gets the next one
        wrong = next(filter(None, (change(summary, summaries, chance) for change in changes)))
        made.append(record.model_copy(update={"target": wrong.text}) if place % 2 else record)
    return made


def refusals(records: Sequence[Record]) -> list[Record]:
    """Each record with a refusal as its target."""
    return [record.model_copy(update={"target": REFUSAL}) for record in records]


class Bench:
    """The task, its data, and the systems that answer it."""

    def __init__(self) -> None:
        self.systems = Systems()
        self.task = _BY_NAME["dialogues"]
        # No gate on speed: nothing of it depends on what an adapter was trained on.
        gates = {name: rule for name, rule in self.task.recipe.evaluation.gates.items() if name != "speed"}
        evaluation = self.task.recipe.evaluation.model_copy(update={"gates": gates})
        self.recipe: Recipe = self.task.recipe.model_copy(update={"evaluation": evaluation})
        self.data = self.systems.build(self.task.data(), "dialogues: data")

    def reports(self) -> dict[str, GateReport]:
        """The gates' report on each candidate."""
        production = self._trained(self.recipe, self.data, "production")
        other = _BY_NAME["proofreading"]
        candidates = {
            "another_features_data": self._trained(
                other.recipe, self.systems.build(other.data(), "proofreading: data"), "another feature's data"
            )
        }
        for make in (shuffled, half_corrupted, refusals):
            candidates[make.__name__] = self._trained(self.recipe, self._spoilt(make.__name__), make.__name__)
        section = self.recipe.training
        reseeded = section.model_copy(update={"seed": section.seed + 1})
        again = self.recipe.model_copy(update={"training": reseeded})
        candidates["another_seed"] = self._trained(again, self.data, "another seed")
        return {name: self._judged(name, adapter, production) for name, adapter in candidates.items()}

    def _spoilt(self, name: str) -> Built:
        """The task's data with other targets to train on."""
        make = {one.__name__: one for one in (shuffled, half_corrupted, refusals)}[name]

        def build(output: Path, scratch: Path) -> None:
            write_records(output / "training.jsonl", make(read_records(self.data.path / "training.jsonl")[0]))

        return self.systems.build(Stage("bench-broken-data", {"data": self.data.digest, "how": name}, build), name)

    def _trained(self, recipe: Recipe, data: Built, label: str) -> Built:
        return self.systems.adapter(self.systems.release, recipe, data, label)

    def _judged(self, name: str, candidate: Built, production: Built) -> GateReport:
        items = read_items(self.recipe, self.data.path / "held_out.jsonl")
        trivial = {
            system: score(self.recipe, items, [Answer(text, 0, 0.0, True) for text in texts])
            for system, texts in trivial_answers(self.recipe.evaluation.metric, items).items()
        }
        scores = trivial | {
            system: score(self.recipe, items, read_answers(self._answers(adapter, name) / ANSWERS, items))
            for system, adapter in (("baseline", None), ("production", production), ("candidate", candidate))
        }
        size = sum(path.stat().st_size for path in (candidate.path / ADAPTER).rglob("*") if path.is_file())
        report = judge(self.recipe, items, scores, list(trivial), {"adapter_mb": size / 1e6})
        failed = "; ".join(f"{gate.name}: {gate.detail}" for gate in report.failed)
        console.print(f"  {name}: {failed or 'passed'}", highlight=False, markup=False)
        return report

    def _answers(self, adapter: Built | None, label: str) -> Path:
        return self.systems.answers(self.systems.release, adapter, self.task.recipe, self.data, label)
