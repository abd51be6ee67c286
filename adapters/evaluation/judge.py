"""The gates of a recipe, held against the scores of all systems.

Notable choices:
- A comparison of two systems is judged by the bound of its interval that counts against the candidate, not by the
  measured difference alone: "better" needs an interval above the margin, "not worse" one above minus the margin.
- A floor or a budget is held against the figure itself, its interval beside it; a budget of a suite against the bound.
- A rule's `judged` says otherwise, as for use cases with so few items that a bound would stop sound candidates.
- `no_drop` fails where a use case is worse than in production and Holm's p-value is below the gate's value.
- A comparison with production passes over a feature that has none.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from adapters.evaluation.comparison import COSTS, Comparisons, Difference
from adapters.evaluation.gates import Comparison, Gate, GateReport, at_least, at_most, bounded, exceeds
from adapters.evaluation.interval import Interval
from adapters.evaluation.scores import WHOLE, Scores
from adapters.evaluation.shares import clopper_pearson, smallest_sample, trials_of
from adapters.recipe import MEASURED, GateRule, Recipe
from adapters.records import Record
from infra.errors import FactoryError

CANDIDATE, BASE, PRODUCTION = "candidate", "baseline", "production"


def judge(
    recipe: Recipe,
    items: Sequence[Record],
    scores_of: Mapping[str, Scores],
    trivial: Sequence[str],
    measured: Mapping[str, float],
) -> GateReport:
    """Hold the candidate against the recipe's gates.

    `scores_of` maps systems to scores, the names in `trivial` among them; `measured` are figures of the adapter itself,
    `adapter_mb` at least. Figures of the report: `<system>` is its score, `<system>/<use case>` that of a use case,
    `<system>.<metric>` any other. `difference` is candidate minus base, `production_difference` minus production, and
    `trivial_difference` minus the best trivial system, each also with `_low`, `_high`, `_p` (Holm's over the use cases)
    and `_detectable`, and each of these also `/<use case>`.

    Raises:
        FactoryError: a gate needs a figure that was not measured.
    """
    court = _Court(recipe, items, scores_of, trivial, measured)
    gates = [gate for name, rule in recipe.evaluation.gates.items() for gate in court.gates(name, rule)]
    gates.append(at_most("size_budget_mb", measured["adapter_mb"], recipe.device.max_adapter_mb))
    return GateReport(recipe.feature, gates, court.figures())


class _Court:
    """What a candidate is judged by."""

    def __init__(
        self,
        recipe: Recipe,
        items: Sequence[Record],
        scores_of: Mapping[str, Scores],
        trivial: Sequence[str],
        measured: Mapping[str, float],
    ) -> None:
        self._main = recipe.evaluation.metric
        self._scores, self._trivial, self._measured = scores_of, trivial, measured
        self._candidate = scores_of[CANDIDATE]
        self._comparisons = Comparisons(items)
        self._found: dict[tuple[str, str], dict[str, Difference]] = {}

    def gates(self, name: str, rule: GateRule) -> Iterator[Gate]:
        """The gates that one rule of the recipe makes: one, or one per use case."""
        slices = {"all": [WHOLE], "each": list(self._candidate.counts)}.get(rule.slice, [rule.slice])
        metric = self._main if rule.metric == "score" else rule.metric
        for part in slices:
            full_name = f"{name}/{part}" if rule.slice == "each" else name
            if rule.comparison in ("at_least", "at_most"):
                yield self._absolute(full_name, rule, metric, part)
                continue
            other = self._opponent(rule, metric, part)
            if other is not None:
                yield self._relative(full_name, rule, metric, part, other)

    def _opponent(self, rule: GateRule, metric: str, part: str) -> str | None:
        """The system that a rule compares with; the best of the trivial ones by this metric on this slice."""
        if rule.comparison == "better_than_base":
            return BASE
        if rule.comparison == "better_than_trivial":
            sign = -1 if metric in COSTS else 1
            known = {name: self._scores[name].values.get(metric, {}) for name in self._trivial}
            return max(known, key=lambda name: sign * known[name].get(part, -sign * math.inf))
        return PRODUCTION if PRODUCTION in self._scores else None

    def _absolute(self, name: str, rule: GateRule, metric: str, part: str) -> Gate:
        if metric in MEASURED or "." in metric:
            if metric not in self._measured:
                raise FactoryError(f"gate {name}: {metric} was not measured; there are: {', '.join(self._measured)}")
            return self._share(name, rule, metric)
        values = self._candidate.values.get(metric, {})
        if part not in values:
            few = metric == "target_style"
            why = "a use case has too few training records" if few else "the model tells no probabilities"
            raise FactoryError(f"gate {name}: there is no {metric}, since {why}; leave it out")
        own = None
        if metric in self._candidate.per_item:
            own = self._comparisons.intervals(self._candidate, metric)[part]
        return _absolute(name, rule, values[part], own)

    def _share(self, name: str, rule: GateRule, metric: str) -> Gate:
        """A floor or a budget on what was measured apart from the items."""
        figure, trials = self._measured[metric], trials_of(metric, self._measured)
        if trials is None:
            return _absolute(name, rule, figure, None)
        words = f"{figure * trials:g} of {trials}"
        # A suite's budget is a promise about all questions of its kind; a few verdicts could never keep one.
        promised = rule.comparison == "at_most" and not metric.startswith("verdicts.")
        if promised and figure == 0 and 0 < rule.value < 1 and trials < smallest_sample(rule.value):
            words += f", and without a single one {smallest_sample(rule.value)} are needed"
        judged = rule.judged or ("bound" if promised else "figure")
        return _absolute(
            name, rule.model_copy(update={"judged": judged}), figure, clopper_pearson(figure, trials), words
        )

    def _relative(self, name: str, rule: GateRule, metric: str, part: str, other: str) -> Gate:
        found = self._difference(metric, other)[part]
        gain = found.interval.negated() if metric in COSTS else found.interval
        if rule.comparison == "no_drop":
            p = found.adjusted if gain.value < 0 else 1.0
            words = f"{gain} against {other}, p {found.adjusted:.3g} by Holm over the use cases"
            return at_least(name, p, rule.value, severity=rule.severity, words=words)
        if rule.comparison == "not_worse_than_production":
            words = (
                f"{gain} against {other}; an equal version fails in {found.false_alarms(rule.value):.1%} of tests, "
                f"a difference of {found.detectable:.3g} is seen in 80%"
            )
            if rule.judged == "figure":
                return at_least(name, gain.value, -rule.value, gain, rule.severity, words)
            return bounded(name, gain, -rule.value, ">=", rule.severity, words)
        words = f"{gain} against {other}"
        if rule.judged == "figure":
            return exceeds(name, gain, rule.value, rule.severity, words)
        return bounded(name, gain, rule.value, ">", rule.severity, words)

    def _difference(self, metric: str, other: str) -> dict[str, Difference]:
        """Candidate minus another system in a metric, worked out once."""
        if (metric, other) not in self._found:
            absent = metric not in self._candidate.per_item or metric not in self._scores[other].per_item
            if absent:
                raise FactoryError(f"{metric} is not known for {CANDIDATE} and {other} both; no gate can compare it")
            found = self._comparisons.differences(self._candidate, self._scores[other], metric)
            self._found[metric, other] = found
        return self._found[metric, other]

    def figures(self) -> dict[str, float]:
        """All measured figures by name."""
        figures: dict[str, float] = dict(self._measured)
        for system, scores in self._scores.items():
            for metric, values in scores.values.items():
                for part, value in values.items():
                    if metric == self._main:
                        figures[f"{system}/{part}" if part else system] = value
                    elif part == WHOLE:
                        figures[f"{system}.{metric}"] = value
        best = max(self._trivial, key=lambda name: self._scores[name].overall) if self._trivial else None
        for prefix, other in (("", BASE), ("production_", PRODUCTION), ("trivial_", best)):
            if other is not None and other in self._scores:
                for part, found in self._difference(self._main, other).items():
                    figures |= _difference_figures(f"{prefix}difference", f"/{part}" if part else "", found)
        return figures


def _absolute(name: str, rule: GateRule, figure: float, found: Interval | None, words: str = "") -> Gate:
    """A floor or a budget, held against the figure, or against the bound of its interval if the rule says so."""
    if rule.judged != "bound":
        make = at_least if rule.comparison == "at_least" else at_most
        return make(name, figure, rule.value, found, rule.severity, words)
    if found is None:
        raise FactoryError(f"gate {name}: {rule.metric} has no interval; leave out `judged: bound`")
    comparison: Comparison = ">=" if rule.comparison == "at_least" else "<="
    return bounded(name, found, rule.value, comparison, rule.severity, f"{words}, {found}" if words else "")


def _difference_figures(prefix: str, suffix: str, found: Difference) -> dict[str, float]:
    figures = {
        "": found.interval.value,
        "_low": found.interval.low,
        "_high": found.interval.high,
        "_p": found.adjusted,
        "_detectable": found.detectable,
    }
    return {f"{prefix}{name}{suffix}": value for name, value in figures.items()}
