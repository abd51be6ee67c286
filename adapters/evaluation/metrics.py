"""Scores of one answer against its references, all in [0, 1], and macro-F1 over many.

Notable choices:
- ROUGE-L (Lin, 2004) is the F-measure of the `rouge_score` library, stemmed; the best of several references counts.
- SARI (Xu et al., 2016, "Optimizing Statistical Machine Translation for Text Simplification") rewards what was rightly
  kept, deleted and added relative to the input, so copying the input does not pay as it does with ROUGE. The paper
  leaves 0/0 open; its first code took 0. Here 0/0 is 1, as in tensor2tensor and Hugging Face's `evaluate`: nothing
  asked for and nothing done is right, and an answer equal to the only reference scores exactly 1. Deletion counts by
  F1 and not by precision alone, as EASSE does: under 0/0 = 1 precision alone would reward deleting nothing. What is
  rightly deleted is the overlap of what was and what should be deleted, as the paper has it; the first code subtracts
  the references instead and so calls "the the" -> "the" wrong.
- SARI's tokens keep their case and punctuation marks are tokens: in proofreading both are the edits.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

NO_LABEL = ""
_ORDERS = (1, 2, 3, 4)
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")

Grams = Counter[tuple[str, ...]]


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of stemmed words with the best matching reference."""
    return float(_rouge_scorer().score_multi(references, answer)["rougeL"].fmeasure)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def sari(source: str, answer: str, references: Sequence[str]) -> float:
    """Sentence-level SARI: the mean of keep-F1, delete-F1 and add-F1, each averaged over n-grams of 1 to 4 tokens."""
    texts = [_tokens(reference) for reference in references]
    parts = [_sari_of_order(_tokens(source), _tokens(answer), texts, order) for order in _ORDERS]
    return sum(sum(part) for part in parts) / (3 * len(_ORDERS))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _grams(tokens: Sequence[str], order: int) -> Grams:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _sari_of_order(
    source: Sequence[str], answer: Sequence[str], references: Sequence[Sequence[str]], order: int
) -> tuple[float, float, float]:
    """Keep-F1, delete-F1 and add-F1 for one n-gram length.

    As in the paper, counts of the source and the answer are multiplied by the number of references, so that an n-gram
    that only some references keep is half right to keep and half right to delete.
    """
    wanted: Grams = sum((_grams(reference, order) for reference in references), Counter())
    before = _times(_grams(source, order), len(references))
    after = _times(_grams(answer, order), len(references))
    kept, deleted = before & after, before - after
    to_keep, to_delete = before & wanted, before - wanted
    added, to_add = after.keys() - before.keys(), wanted.keys() - before.keys()
    rightly_added = len(added & to_add)
    return (
        _f1(_mean_share(kept & wanted, kept), _mean_share(kept & wanted, to_keep)),
        _f1(_mean_share(deleted & to_delete, deleted), _mean_share(deleted & to_delete, to_delete)),
        _f1(_share(rightly_added, len(added)), _share(rightly_added, len(to_add))),
    )


def _times(grams: Grams, factor: int) -> Grams:
    return Counter({gram: count * factor for gram, count in grams.items()})


def _mean_share(good: Grams, of: Grams) -> float:
    """The mean over the n-grams of `of` of the share of their count that is good."""
    return sum(good[gram] / count for gram, count in of.items()) / len(of) if of else 1.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def parse_label(answer: str, labels: Sequence[str]) -> str:
    """The allowed label that stands first in the answer as a token of its own, whatever its case; else `NO_LABEL`."""
    longest_first = sorted(labels, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    found = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", answer, re.IGNORECASE)
    if found is None:
        return NO_LABEL
    by_folded = {label.casefold(): label for label in labels}
    return by_folded.get(found[0].casefold(), NO_LABEL)


def macro_f1(truth: Sequence[str], predicted: Sequence[str]) -> float:
    """Mean F1 over the labels that occur in `truth`; a prediction of any other label, or none, is an error.

    A label without a single true item has no F1 to speak of, and would only lower every system by the same amount.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0))
