"""Scores of a classifier: macro-F1, the cost of its errors, and whether its probabilities mean what they say."""

import math
import re
from collections.abc import Mapping, Sequence

NO_LABEL = ""
_BINS = 10

Costs = Mapping[str, Mapping[str, float]]


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


def error_cost(truth: str, predicted: str, costs: Costs) -> float:
    """What an error costs, as a share of the dearest one; 0 for the right label.

    `costs` maps a true label to what taking it for another costs. Pairs that it leaves out cost 1, and no label at all
    costs as much as the dearest error about this true label.
    """
    dearest = max((cost for row in costs.values() for cost in row.values()), default=1.0)
    dearest = max(dearest, 1.0)
    if predicted == truth:
        return 0.0
    row = costs.get(truth, {})
    cost = max(row.values(), default=1.0) if predicted == NO_LABEL else row.get(predicted, 1.0)
    return cost / dearest


def confidence(tokens: int, logprob: float) -> float | None:
    """The probability that the model gave to its whole answer, from its length and its mean log-probability per token.

    None where the engine tells no log-probabilities.
    """
    return math.exp(tokens * logprob) if logprob < 0 else None


def brier(probability: float, right: bool) -> float:
    """Square distance of a stated probability from what came out (Brier, 1950): 0 is best."""
    return (probability - float(right)) ** 2


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error over ten bins of equal width (Guo et al., 2017): mean |accuracy - confidence|."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for probability, hit in zip(probabilities, right, strict=True):
        bins.setdefault(min(int(probability * _BINS), _BINS - 1), []).append((probability, hit))
    gaps = (abs(sum(p for p, _ in members) - sum(hit for _, hit in members)) for members in bins.values())
    return sum(gaps) / len(probabilities)
