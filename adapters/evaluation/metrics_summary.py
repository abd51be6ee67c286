"""Scores of one summary: overlap with references, and what can be checked against the source without a model.

Notable choices:
- ROUGE (Lin, 2004) is the F-measure of the `rouge_score` library, stemmed; the best of several references counts.
- Numbers and names are found by the rules that reject synthetic summaries (adapters/synthesis), so a candidate is held
  to what its training data was held to. They lean to rejecting: a grounded answer may be called ungrounded.
"""

import functools
from collections.abc import Sequence
from typing import Any

from adapters.synthesis.facts import is_named, names, numbers, supported_numbers, vocabulary
from adapters.synthesis.rules import Source

KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def rouge(answer: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, each with the best matching reference."""
    scores = _rouge_scorer().score_multi(list(references), answer)
    return {name: float(scores[kind].fmeasure) for name, kind in KINDS.items()}


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS.values()), use_stemmer=True)


@functools.lru_cache(maxsize=4096)
def facts_of(document: str) -> Source:
    """What a document holds; worked out once, however many systems answer."""
    return Source.of(document, "")


def supported_share(answer: str, source: Source) -> float:
    """Share of the answer's numbers and names that the source holds; 1 if it has none."""
    return _share(
        [bool(number.values & source.numbers) for number in numbers(answer) if number.certain]
        + [is_named(name.word, source.vocabulary) for name in names(answer) if not name.opening]
    )


def kept_share(answer: str, text: str) -> float:
    """Share of a text's numbers and names that the answer holds; 1 if it has none.

    Held against a reference this is coverage, held against the input of a rewriting it is meaning kept.
    """
    known, values = vocabulary(answer), supported_numbers(answer)
    return _share(
        [bool(number.values & values) for number in numbers(text) if number.certain]
        + [is_named(name.word, known) for name in names(text) if not name.opening]
    )


def coverage(answer: str, references: Sequence[str]) -> float:
    """`kept_share` of the reference that is covered best."""
    return max(kept_share(answer, reference) for reference in references)


def length_ratio(answer: str, references: Sequence[str]) -> float:
    """Words of the answer over words of the references' mean."""
    return len(answer.split()) * len(references) / max(sum(len(reference.split()) for reference in references), 1)


def _share(held: Sequence[bool]) -> float:
    return sum(held) / len(held) if held else 1.0
