"""How alike a set of texts is: distinct-n (Li et al. 2016) and self-BLEU (Zhu et al. 2018)."""

import math
from collections import Counter
from collections.abc import Sequence

from adapters.synthesis.facts import runs, words

_LONGEST = 4
# Self-BLEU compares each text with all others; a sample says as much.
_SAMPLE = 200


def diversity(texts: Sequence[str]) -> dict[str, float | None]:
    """`distinct_1`, `distinct_2` (share of different n-grams; 1: none repeats) and `self_bleu` (1: all alike)."""
    items = [words(text) for text in texts]
    figures: dict[str, float | None] = {f"distinct_{n}": _distinct(items, n) for n in (1, 2)}
    return figures | {"self_bleu": _self_bleu(items[:_SAMPLE])}


def _distinct(items: Sequence[list[str]], length: int) -> float | None:
    found = [run for text in items for run in runs(text, length)]
    return round(len(set(found)) / len(found), 4) if found else None


def _self_bleu(items: Sequence[list[str]]) -> float | None:
    """Mean BLEU-4 (add-one smoothed) of each text against all others as references."""
    items = [text for text in items if text]
    if len(items) < 2:
        return None
    counts = [[Counter(runs(text, n)) for text in items] for n in range(1, _LONGEST + 1)]
    # The two highest counts of each n-gram: the highest among the *others* is one of them.
    highest: list[dict[tuple[str, ...], list[tuple[int, int]]]] = []
    for of_length in counts:
        top: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for number, counter in enumerate(of_length):
            for run, count in counter.items():
                top[run] = sorted([*top.get(run, []), (count, number)], reverse=True)[:2]
        highest.append(top)
    lengths = [len(text) for text in items]
    scores = []
    for number in range(len(items)):
        logs = 0.0
        for of_length, top in zip(counts, highest, strict=True):
            matched = sum(
                min(count, next((other for other, owner in top[run] if owner != number), 0))
                for run, count in of_length[number].items()
            )
            logs += math.log((matched + 1) / (of_length[number].total() + 1)) / _LONGEST
        nearest = min((abs(other - lengths[number]), other) for n, other in enumerate(lengths) if n != number)[1]
        scores.append(math.exp(logs + min(0.0, 1 - nearest / lengths[number])))
    return round(sum(scores) / len(scores), 4)
