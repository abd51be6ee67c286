"""Two systems on the same items: the difference with its interval, its p-values, and what the test is able to see."""

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.evaluation.interval import Interval
from adapters.evaluation.items import documents
from adapters.evaluation.scores import WHOLE, Scores, resampled
from adapters.evaluation.significance import (
    detectable_effect,
    false_alarm_rate,
    holm,
    macro_f1_test,
    mcnemar_test,
    randomization_test,
)
from adapters.evaluation.statistics import Weights, interval, resample
from adapters.records import Record

SEED = 0
# Less of these is better.
COSTS = frozenset({"empty", "refused", "copied", "error_cost", "brier", "calibration_error"})


@dataclass(frozen=True)
class Difference:
    """`one` minus `other` in a metric, on one use case or the whole.

    `standard_error` is the bootstrap's. `p` belongs to "no different": McNemar's for accuracy, else by randomization;
    `adjusted` is Holm's over the use cases (the whole is a test of its own: there it equals `p`).
    """

    interval: Interval
    standard_error: float
    p: float
    adjusted: float

    @property
    def detectable(self) -> float:
        """The smallest true difference that such a test sees in four cases of five."""
        return detectable_effect(self.standard_error)

    def false_alarms(self, margin: float) -> float:
        """How often an equal system fails "not worse by more than `margin`"."""
        return false_alarm_rate(self.standard_error, margin)


class Comparisons:
    """Intervals and differences over the same items, drawn alike for all systems."""

    def __init__(self, items: Sequence[Record]) -> None:
        self._items = items
        self._documents = documents(items)
        self._weights: Weights = resample([item.use_case for item in items], self._documents, SEED)

    def intervals(self, scores: Scores, metric: str) -> dict[str, Interval]:
        """A system's own figure, each use case under its name and the whole under ""."""
        drawn = resampled(self._items, scores, metric, self._weights)
        return {name: interval(scores.values[metric][name], values) for name, values in drawn.items()}

    def differences(self, one: Scores, other: Scores, metric: str) -> dict[str, Difference]:
        """`one` minus `other`, each use case under its name and the whole under ""."""
        ours, theirs = (resampled(self._items, scores, metric, self._weights) for scores in (one, other))
        p_values = {name: self._p_value(one, other, metric, name) for name in ours}
        adjusted = holm({name: p for name, p in p_values.items() if name != WHOLE}) | {WHOLE: p_values[WHOLE]}
        return {
            name: Difference(
                interval(one.values[metric][name] - other.values[metric][name], ours[name] - theirs[name]),
                float((ours[name] - theirs[name]).std(ddof=1)),
                p_values[name],
                adjusted[name],
            )
            for name in ours
        }

    def _p_value(self, one: Scores, other: Scores, metric: str, name: str) -> float:
        chosen = [at for at, item in enumerate(self._items) if name in (WHOLE, item.use_case)]
        documents = [self._documents[at] for at in chosen]
        ours, theirs = ([scores.per_item[metric][at] for at in chosen] for scores in (one, other))
        if metric == "macro_f1":
            truth = [self._items[at].targets[0] for at in chosen]
            said, said_by_other = ([scores.labels[at] for at in chosen] for scores in (one, other))
            return macro_f1_test(truth, said, said_by_other, documents, SEED)
        if metric == "accuracy":
            return mcnemar_test([bool(value) for value in ours], [bool(value) for value in theirs], documents)
        # Each use case weighs the same in the whole, however many items it has.
        shares = [1.0 if name != WHOLE else 1 / one.counts[self._items[at].use_case] for at in chosen]
        gaps = [(a - b) * share for a, b, share in zip(ours, theirs, shares, strict=True)]
        return randomization_test(gaps, documents, SEED)
