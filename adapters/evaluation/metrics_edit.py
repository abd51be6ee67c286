"""Scores of one edited text against its references, all in [0, 1].

Notable choices:
- SARI (Xu et al., 2016, "Optimizing Statistical Machine Translation for Text Simplification") rewards what was rightly
  kept, deleted and added relative to the input, so copying the input does not pay as it does with ROUGE. The paper
  leaves 0/0 open; its first code took 0. Here 0/0 is 1, as in tensor2tensor and Hugging Face's `evaluate`: nothing
  asked for and nothing done is right, and an answer equal to the only reference scores exactly 1. Deletion counts by
  F1 and not by precision alone, as EASSE does: under 0/0 = 1 precision alone would reward deleting nothing. What is
  rightly deleted is the overlap of what was and what should be deleted, as the paper has it; the first code subtracts
  the references instead and so calls "the the" -> "the" wrong.
- GLEU is that of grammatical error correction (Napoles et al., 2015, in the form of 2016, "GLEU Without Tuning"), per
  sentence and smoothed as its authors' code does it; several references count by their mean, where that code draws
  among them. (The GLEU of NLTK is another score of the same name, for translation.)
- F0.5 counts edits as the MaxMatch scorer does (Dahlmeier and Ng, 2012): an edit is a run of tokens of the source and
  what stands in its place, right if the reference has the very same; precision weighs twice as much as recall. Edits
  come from an alignment by `difflib`, neighbouring ones as one: ERRANT's finer, typed edits need a language model.
- Tokens keep their case and punctuation marks are tokens: in proofreading both are the edits.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

_ORDERS = (1, 2, 3, 4)
_BETA = 0.5
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")

Grams = Counter[tuple[str, ...]]
Edit = tuple[int, int, tuple[str, ...]]


def gleu(source: str, answer: str, references: Sequence[str]) -> float:
    """Sentence-level GLEU: n-gram precision against the reference, less what was wrongly kept of the source."""
    scores = [_gleu(_tokens(source), _tokens(answer), _tokens(reference)) for reference in references]
    return sum(scores) / len(scores)


def _gleu(source: Sequence[str], answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer:
        return 0.0
    logs = 0.0
    for order in _ORDERS:
        said, wanted, before = _grams(answer, order), _grams(reference, order), _grams(source, order)
        wrongly_kept = Counter({gram: count for gram, count in before.items() if gram not in wanted})
        right = (said & wanted).total() - (said & wrongly_kept).total()
        logs += math.log(max(right, 0) or 1) - math.log(said.total() or 1)
    brevity = min(0.0, 1 - len(reference) / len(answer))
    return math.exp(brevity + logs / len(_ORDERS))


def edit_f05(source: str, answer: str, references: Sequence[str]) -> float:
    """F0.5 of the answer's edits with the reference that it matches best; nothing to edit and nothing edited is 1."""
    done = edits(source, answer)
    return max(_f_beta(done, edits(source, reference)) for reference in references)


def edits(source: str, target: str) -> set[Edit]:
    """What turns a text into another: (first token, token after the last, the tokens in their place)."""
    before, after = _tokens(source), _tokens(target)
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return {(start, end, tuple(after[low:high])) for kind, start, end, low, high in steps if kind != "equal"}


def _f_beta(done: set[Edit], wanted: set[Edit]) -> float:
    right = len(done & wanted)
    precision = _share(right, len(done))
    recall = _share(right, len(wanted))
    weighted = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / weighted if weighted else 0.0


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
