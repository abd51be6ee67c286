"""IFEval: instructions that a program can verify (Zhou et al., 2023, arXiv 2311.07911).

The checkers of all 25 kinds are those of lm-eval, which keeps Google's code; prompts are a JSONL file in its format
(key, prompt, instruction_id_list, kwargs). A prompt counts as followed if all its instructions are. Loose: an answer
may do so without its first line, its last line or its asterisks.
"""

import functools
import importlib
import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from adapters.evaluation.answers import Question
from adapters.evaluation.suites.suite import Asked, Files, Result, Row, Suite, mean, read_rows, sample
from adapters.inference.types import Answer, Prompt, Sampling
from adapters.recipe import SUITE_FILES, DataSection
from infra.errors import FactoryError

_ANSWER_TOKENS = 512


def _ask(files: Files, data: DataSection, items: int) -> Asked:
    rows = sample(read_rows(files["prompts"], ("key", "prompt", "instruction_id_list", "kwargs")), items)
    for row in rows:
        if not row["instruction_id_list"]:
            raise FactoryError(f"{files['prompts']}: prompt {row['key']} has no instruction; take it out")
    # General ability is asked for as IFEval does it: without a feature's system message.
    questions = [Question(Prompt("", row["prompt"]), Sampling(_ANSWER_TOKENS)) for row in rows]
    return Asked(questions, lambda answers: _read(rows, answers))


def _read(rows: Sequence[Row], answers: Sequence[Answer]) -> Result:
    kinds = checkers()
    judged: list[dict[str, Any]] = []
    for row, answer in zip(rows, answers, strict=True):
        strict = followed(kinds, row, [answer.text])
        loose = followed(kinds, row, variants(answer.text))
        judged.append(
            {
                "id": str(row["key"]),
                "instructions": row["instruction_id_list"],
                "strict": strict,
                "loose": loose,
                "passed": all(strict),
                "answer": answer.text,
            }
        )
    figures = {"prompts": float(len(judged))}
    for manner in ("strict", "loose"):
        figures[f"prompt_{manner}"] = mean([all(row[manner]) for row in judged])
        figures[f"instruction_{manner}"] = mean([one for row in judged for one in row[manner]])
    return Result(figures, judged)


def followed(kinds: dict[str, Any], row: Row, texts: Sequence[str]) -> list[bool]:
    """For each instruction of a prompt, whether any of the texts follows it.

    Raises:
        FactoryError: a kind of instruction is unknown.
    """
    verdicts = []
    for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        if name not in kinds:
            raise FactoryError(f"prompt {row['key']}: no instruction {name!r} in IFEval; correct the file")
        checker = kinds[name](name)
        checker.build_description(**{key: value for key, value in (given or {}).items() if value is not None})
        if "prompt" in (checker.get_instruction_args() or {}):
            checker.build_description(prompt=row["prompt"])
        verdicts.append(any(bool(text.strip() and checker.check_following(text)) for text in texts))
    return verdicts


def variants(answer: str) -> list[str]:
    """The answer, without its first, its last, or both lines, each with and without asterisks."""
    lines = answer.split("\n")
    parts = (lines, lines[1:], lines[:-1], lines[1:-1])
    texts = [answer, *("\n".join(part).strip() for part in parts[1:])]
    return [*texts, *(text.replace("*", "") for text in texts)]


@functools.cache
def checkers() -> dict[str, Any]:
    """The classes that check answers, by the name of the instruction.

    Raises:
        FactoryError: lm-eval is not installed.
    """
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"  # only rank 0 downloads NLTK's data when it is imported
    try:
        registry = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
        util: Any = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
        detector = importlib.import_module("langdetect").DetectorFactory
    except ImportError as error:
        raise FactoryError(
            f"the suite ifeval needs lm-eval ({error}); install the extra: pip install 'adapter-factory[suites]'"
        ) from None
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank
    detector.seed = 0  # it draws at random otherwise
    tokenizer = _sentence_tokenizer()
    util._get_sentence_tokenizer = lambda: tokenizer  # lm-eval's own reads a pickle
    util.nltk = SimpleNamespace(tokenize=util.nltk.tokenize, word_tokenize=_words)
    return dict(registry.INSTRUCTION_DICT)


def _sentence_tokenizer() -> Any:
    """NLTK's for English if its data are there (`python -m nltk.downloader punkt_tab`), else an untrained one."""
    punkt = importlib.import_module("nltk.tokenize.punkt")
    try:
        return punkt.PunktTokenizer("english")
    except LookupError:
        return punkt.PunktSentenceTokenizer()


def _words(text: str) -> list[str]:
    """Words and punctuation marks of a text, line by line and without trained data."""
    words: list[str] = importlib.import_module("nltk.tokenize").word_tokenize(text, preserve_line=True)
    return words


IFEVAL = Suite(SUITE_FILES["ifeval"], _ask)
