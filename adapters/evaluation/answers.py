"""What systems answer: written once for a model, a prompt and settings, and read again ever after.

An `AnswerBook` is a folder of Parquet files with the answers of one model. Whoever asks gets what is there at once and
has the rest generated; what is generated is written every few answers, so a killed run goes on where it was.

The key of generated answers follows this module's imports: what scores and judges lies elsewhere.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from adapters.evaluation.items import read_items
from adapters.inference.types import Answer, Prompt, Sampling, TextGenerator
from adapters.recipe import Recipe
from adapters.records import Record
from infra.canonical import digest
from infra.errors import FactoryError
from infra.progress import track

ANSWERS = "answers.parquet"
_WRITTEN_TOGETHER = 64


class Question(NamedTuple):
    """A prompt and how its one answer is drawn."""

    prompt: Prompt
    sampling: Sampling

    @property
    def key(self) -> str:
        """SHA-256 of both."""
        drawn = self.sampling
        return digest([*self.prompt, drawn.max_new_tokens, drawn.temperature, drawn.top_p, drawn.seed])


class AnswerBook:
    """The answers of one model, by question. Several processes may write to the folder: its files are whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Answer] = {}
        for path in sorted(folder.glob("*.parquet")):
            self._known |= {row.pop("question"): Answer(**row) for row in read_table(path)}

    def answer(
        self, questions: Sequence[Question], open_generator: Callable[[], TextGenerator], label: str
    ) -> list[Answer]:
        """One answer to each question, in order; the generator is opened only if one is missing."""
        missing = list(dict.fromkeys(question for question in questions if question.key not in self._known))
        if missing:
            generator = open_generator()
            with track(label, len(missing)) as step:
                # Questions drawn alike are asked together: with more rows side by side weights are read less often.
                for sampling in sorted({question.sampling for question in missing}, key=lambda one: one.max_new_tokens):
                    alike = [question for question in missing if question.sampling == sampling]
                    self._generate(generator, alike, sampling, step.advance)
        return [self._known[question.key] for question in questions]

    def _generate(
        self, generator: TextGenerator, questions: list[Question], sampling: Sampling, on_progress: Callable[[], None]
    ) -> None:
        fresh: dict[str, Answer] = {}

        def done(index: int, answers: list[Answer]) -> None:
            fresh[questions[index].key] = answers[0]
            on_progress()
            if len(fresh) >= _WRITTEN_TOGETHER:
                self._keep(fresh)

        try:
            generator.generate([question.prompt for question in questions], sampling, done)
        finally:  # whoever interrupts loses nothing
            self._keep(fresh)

    def _keep(self, fresh: dict[str, Answer]) -> None:
        if not fresh:
            return
        rows = [{"question": key, **asdict(answer)} for key, answer in fresh.items()]
        self._folder.mkdir(parents=True, exist_ok=True)
        name = digest(sorted(fresh))
        making = self._folder / f".{name}.{os.getpid()}"
        write_table(making, rows)
        making.rename(self._folder / f"{name}.parquet")
        self._known |= fresh
        fresh.clear()


def questions(recipe: Recipe, items: Sequence[Record]) -> list[Question]:
    """Each item put to a model as the recipe says, to be answered greedily."""
    cases = recipe.data.use_cases
    return [
        Question(
            Prompt(recipe.data.system, cases[item.use_case].ask(item.input)),
            Sampling(cases[item.use_case].max_new_tokens),
        )
        for item in items
    ]


def write_answers(
    open_generator: Callable[[], TextGenerator], recipe: Recipe, held_out: Path, book: Path, output: Path
) -> None:
    """Answer the items of a held-out file into `output/answers.parquet`, over the model's book in the folder `book`.

    Columns: id, use_case, text, tokens, logprob (mean per token; 0 where the engine tells none), finished.
    """
    items = read_items(recipe, held_out)
    answers = AnswerBook(book).answer(questions(recipe, items), open_generator, f"{recipe.feature}: answers")
    rows = [
        {"id": item.id, "use_case": item.use_case, **asdict(answer), "text": answer.text.strip()}
        for item, answer in zip(items, answers, strict=True)
    ]
    write_table(output / ANSWERS, rows)


def read_answers(path: Path, items: Sequence[Record]) -> list[Answer]:
    """The answers of a file of `write_answers`, one per item, in the order of the items.

    Raises:
        FactoryError: an item has no answer there, so the answers are of other held-out records.
    """
    by_id = {row["id"]: row for row in read_table(path)}
    missing = [item.id for item in items if item.id not in by_id]
    if missing:
        raise FactoryError(f"{path}: no answer to {missing[0]} and {len(missing) - 1} more; answer the items again")
    names = ("text", "tokens", "logprob", "finished")
    return [Answer(**{name: by_id[item.id][name] for name in names}) for item in items]


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the same columns as Parquet."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file.

    Raises:
        FactoryError: it is none, or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise FactoryError(f"{path}: not a Parquet file: {error}; remove it, and what it held is made again") from None
    return rows
