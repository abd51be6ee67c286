"""The tasks of `bench features`: real texts of `shared/data` as records, each with the recipe of the feature it is for.

A record is held out by a digest of its id, so a task is the same test in every run. What is held out and repeats the
training part, nearly or by an n-gram, is removed by the product's own search.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.code import code_digest
from adapters.data.cleaning import clean
from adapters.data.overlap import remove_overlap
from adapters.recipe import Recipe, UseCase, load_recipe
from adapters.records import Record, digest_records, write_records
from infra.canonical import digest
from infra.store import Stage
from tests.benchmarks.common import ROOT
from tests.benchmarks.texts import rows

ITEMS = 100
# A device's context is 1,024 tokens: what a thread has beyond this many words would not be read.
THREAD_WORDS = 400
LONGEST = 1024

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One use case on real text.

    `record` makes input and target of a row; `test` names the file of the test, and without one a share `held_out` of
    the rows is the test. `use_case` stands in for the recipe's where the texts need another prompt or longer answers.
    """

    name: str
    feature: str
    case: str
    train: str
    license: str
    record: Callable[[Row], tuple[str, str | list[str]]]
    metrics: tuple[str, ...]
    held_out: float = 0.0
    test: str = ""
    use_case: UseCase | None = None

    @property
    def recipe(self) -> Recipe:
        """The feature's recipe of the profile `full`, with this use case alone."""
        recipe = load_recipe(ROOT / "adapters" / "features" / self.feature, "full")
        use_cases = {self.case: self.use_case or recipe.data.use_cases[self.case]}
        return recipe.model_copy(
            update={
                "data": recipe.data.model_copy(update={"use_cases": use_cases}),
                "training": recipe.training.model_copy(update={"max_tokens": LONGEST}),
                "evaluation": recipe.evaluation.model_copy(update={"items_per_use_case": ITEMS}),
            }
        )

    def records(self) -> tuple[list[Record], set[str]]:
        """All records, those to train on first, and the ids of those that are held out.

        Raises:
            FactoryError: `shared/data` is not there.
        """
        training = [self._record(row) for row in rows(self.train)]
        if self.test:
            held_out = [self._record(row) for row in rows(self.test)]
        else:
            held_out = [one for one in training if int(digest([self.name, one.id])[:16], 16) / 2**64 < self.held_out]
            training = [one for one in training if one not in held_out]
        return [*training, *held_out], {one.id for one in held_out}

    def data(self) -> Stage:
        """`training.jsonl` and `held_out.jsonl`, cleaned and without overlap, and `report.json`."""
        records, held_out = self.records()
        section = self.recipe.data.cleaning

        def build(output: Path, scratch: Path) -> None:
            overlap = remove_overlap(clean(records, section).records, held_out, section, ())
            write_records(output / "training.jsonl", (one for one in overlap.records if one.id not in held_out))
            write_records(output / "held_out.jsonl", (one for one in overlap.records if one.id in held_out))
            (output / "report.json").write_text(json.dumps(overlap.report(), indent=1), "utf-8")

        inputs = {
            "task": self.name,
            "records": digest_records(records),
            "held_out": sorted(held_out),
            "cleaning": section.digest,
            "code": [code_digest(name) for name in ("adapters.data.cleaning", "adapters.data.overlap")],
        }
        return Stage("bench-features-data", inputs, build)

    def _record(self, row: Row) -> Record:
        text, target = self.record(row)
        # Every row is a document of its own.
        source = f"{self.train}#{row['id']}"
        return Record(id=row["id"], use_case=self.case, input=text, target=target, source=source, license=self.license)


def thread(row: Row) -> str:
    """A thread's messages as our own mails are written, up to `THREAD_WORDS` words."""
    left = THREAD_WORDS
    parts = []
    for message in row["messages"]:
        words = message["text"].split()[:left]
        left -= len(words)
        if words:
            parts.append(f"From: {message['from']}\nSubject: {message['subject']}\n\n{' '.join(words)}")
    return "\n\n".join(parts)


TASKS = (
    Task(
        name="notifications",
        feature="notifications",
        case="priority",
        train="notifications/priority.train.jsonl",
        license="Apache-2.0",
        record=lambda row: (
            f"App: {row['app']}\nTitle: {row['title']}\nText: {row['body']}",
            str(row["priority"]),
        ),
        metrics=("macro_f1",),
        held_out=0.1,
    ),
    Task(
        name="proofreading",
        feature="writing",
        case="proofread",
        train="writing/proofread.train.jsonl",
        license="CC-BY-NC-SA-4.0",
        record=lambda row: (row["text"], list(row["references"])),
        metrics=("gleu", "edit_f05"),
        held_out=0.2,
    ),
    Task(
        name="dialogues",
        feature="summarization",
        case="messages",
        train="summarization/messages.train.jsonl",
        license="CC-BY-NC-SA-4.0",
        record=lambda row: (row["dialogue"], row["summary"]),
        metrics=("rouge_l",),
        held_out=0.25,
    ),
    Task(
        name="threads",
        feature="summarization",
        case="email",
        train="summarization/email_threads.train.jsonl",
        test="summarization/email_threads.val.jsonl",
        license="CC-BY-SA-4.0",
        record=lambda row: (thread(row), row["summary"]),
        metrics=("rouge_l",),
        use_case=UseCase(prompt="Summarize this email thread in a few sentences.\n\n{input}", max_new_tokens=128),
    ),
)
