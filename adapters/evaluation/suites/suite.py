"""What a suite is: questions made from files, and figures made from the answers.

Prompts come as files, named by a recipe or an option: none are shipped, and nothing is fetched.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.evaluation.answers import Question
from adapters.inference.types import Answer
from adapters.recipe import SUITE_FILES, DataSection
from infra.canonical import digest
from infra.errors import FactoryError

Files = Mapping[str, Path]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a suite found of one system: figures by name, and a row per question, `passed` among its fields."""

    figures: dict[str, float]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """A suite's questions, and how answers to them are read."""

    questions: Sequence[Question]
    read: Callable[[Sequence[Answer]], Result]


@dataclass(frozen=True)
class Suite:
    """`needs` names its files; `ask` makes the questions.

    `ask(files, data, items)` takes at most `items` questions of each file and puts them to the model as it would be
    used: with the system message (and for documents the prompt) of the feature's section `data`. It is None where
    nothing is answered.
    """

    needs: tuple[str, ...]
    ask: Callable[[Files, DataSection, int], Asked] | None

    def check(self, name: str, files: Files) -> None:
        """Whether the files are those that the suite needs, and are there.

        Raises:
            FactoryError: they are not; what is missing is named.
        """
        unknown = sorted(files.keys() - set(self.needs))
        missing = [need for need in self.needs if need not in files]
        if unknown:
            raise FactoryError(f"suite {name} has no file {unknown[0]!r}; it needs {', '.join(self.needs)}")
        if missing:
            raise FactoryError(f"suite {name} needs the file {missing[0]}; name it as --file {missing[0]}=PATH")
        for path in files.values():
            if not path.is_file():
                raise FactoryError(f"{path}: no such file; suite {name} needs it")


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """The rows of a JSONL file.

    Raises:
        FactoryError: there is no row, or a line is no JSON object or lacks one of the required fields.
    """
    rows: list[Row] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise FactoryError(f"{path}:{number}: not JSON: {error}") from None
            absent = [name for name in required if not isinstance(row, dict) or name not in row]
            if absent:
                raise FactoryError(f"{path}:{number}: a row needs {', '.join(required)}; {absent[0]} is missing")
            rows.append(row)
    if not rows:
        raise FactoryError(f"{path}: no rows, so there is nothing to ask; add some, or take the suite out")
    return rows


def text_of(row: Row) -> str:
    """A document's text: the first of the fields that such files have.

    Raises:
        FactoryError: it has none of them.
    """
    for name in ("context", "input", "text"):
        if isinstance(row.get(name), str) and row[name].strip():
            return str(row[name])
    raise FactoryError("a document of a suite needs its text as `context`, `input` or `text`")


def read_texts(path: Path) -> list[str]:
    """The texts of a JSON file: a list of them, or lists by category.

    Raises:
        FactoryError: the file is not JSON, or holds no text.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FactoryError(f"{path}: not JSON: {error}") from None
    lists = list(content.values()) if isinstance(content, dict) else [content]
    texts = [text for group in lists if isinstance(group, list) for text in group if isinstance(text, str)]
    if not texts:
        raise FactoryError(f"{path}: no texts; write a JSON list of them, or lists by category")
    return texts


def sample(rows: Sequence[Row], items: int) -> list[Row]:
    """At most `items` rows, in the order of a digest of their content: at random, but always alike."""
    return sorted(rows, key=digest)[:items]


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


PERPLEXITY = Suite(SUITE_FILES["perplexity"], None)  # measured on the model itself: perplexity.py
