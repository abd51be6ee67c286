"""Run a suite over one system, and hold two systems' results against each other."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adapters.evaluation.answers import AnswerBook
from adapters.evaluation.significance import mcnemar_test
from adapters.evaluation.suites.ifeval import IFEVAL
from adapters.evaluation.suites.safety import INJECTIONS, REQUESTS
from adapters.evaluation.suites.sensitive import SENSITIVE
from adapters.evaluation.suites.suite import PERPLEXITY, Files, Suite
from adapters.inference.types import TextGenerator
from adapters.recipe import DataSection
from infra.canonical import canonical_json
from infra.errors import FactoryError

SUITES: Mapping[str, Suite] = {
    "safety": REQUESTS,
    "injections": INJECTIONS,
    "sensitive": SENSITIVE,
    "ifeval": IFEVAL,
    "perplexity": PERPLEXITY,
}
RESULT = "result.json"


def checked_suite(name: str, files: Files) -> Suite:
    """The suite of a name, if the files are those that it needs.

    Raises:
        FactoryError: there is no such suite, or a file is missing.
    """
    if name not in SUITES:
        raise FactoryError(f"no suite {name!r}; there are: {', '.join(SUITES)}")
    SUITES[name].check(name, files)
    return SUITES[name]


def write_answered_suite(
    name: str,
    files: Files,
    data: DataSection,
    items: int,
    open_generator: Callable[[], TextGenerator],
    book: Path,
    output: Path,
) -> None:
    """Answer a suite's questions, over the model's book, and write `result.json`: figures, and a row per question.

    Raises:
        FactoryError: a file is missing or is not what the suite reads.
    """
    suite = checked_suite(name, files)
    assert suite.ask is not None
    asked = suite.ask(files, data, items)
    result = asked.read(AnswerBook(book).answer(asked.questions, open_generator, f"suite {name}"))
    (output / RESULT).write_bytes(canonical_json({"figures": result.figures, "rows": result.rows}))


def write_perplexity(files: Files, model: Any, tokenizer: Any, items: int, output: Path) -> None:
    """Measure the suite `perplexity` and write `result.json`; `items` are windows of text.

    Raises:
        FactoryError: the text is missing or too short.
    """
    from adapters.evaluation.suites.perplexity import perplexity

    checked_suite("perplexity", files)
    figures = perplexity(model, tokenizer, files["text"], items)
    (output / RESULT).write_bytes(canonical_json({"figures": figures, "rows": []}))


def compared(ours: Path, base: Path) -> dict[str, float]:
    """Figures of two results of one suite: ours by name, the base's with `_base`, and where each question passes or
    fails `passed`, `passed_change` (ours less the base's) and `passed_p` (McNemar)."""
    one, other = (json.loads((folder / RESULT).read_text("utf-8")) for folder in (ours, base))
    figures = dict(one["figures"]) | {f"{name}_base": value for name, value in other["figures"].items()}
    if one["rows"]:
        left, right = ([bool(row["passed"]) for row in side["rows"]] for side in (one, other))
        figures["passed"] = sum(left) / len(left)
        figures["passed_change"] = figures["passed"] - sum(right) / len(right)
        figures["passed_p"] = mcnemar_test(left, right, [str(number) for number in range(len(left))])
    return figures
