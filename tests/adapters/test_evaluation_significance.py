"""Statistics against theory, and against many tests of systems between which nothing differs."""

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from adapters.evaluation.comparison import Comparisons
from adapters.evaluation.interval import Interval
from adapters.evaluation.metrics_label import macro_f1
from adapters.evaluation.scores import score
from adapters.evaluation.significance import (
    detectable_effect,
    false_alarm_rate,
    holm,
    macro_f1_test,
    mcnemar_test,
    randomization_test,
)
from adapters.evaluation.statistics import resample, weighted_macro_f1, weighted_mean
from tests.adapters.evaluation_cases import recipe, record, said
from tests.adapters.unchanged import stored, unchanged

SEEDS = 200


def test_the_bootstrap_repeats_and_keeps_documents_together() -> None:
    weights = resample(["a", "a", "b", "b", "b"], ["x", "y", "x", "z", "w"], seed=3)
    assert np.array_equal(weights, resample(["a", "a", "b", "b", "b"], ["x", "y", "x", "z", "w"], seed=3))
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert (weights[:, :2].sum(axis=1) > 0).all() and (weights[:, 2:].sum(axis=1) > 0).all()
    assert weights.shape == (2000, 5)


def test_the_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    plan = recipe("rouge_l", cases=["one"])
    chosen = [record(f"n{i}", "one", f"text {i}", "yes indeed") for i in range(200)]
    better = score(plan, chosen, said(["yes indeed" if i % 2 else "no" for i in range(200)]))
    worse = score(plan, chosen, said(["no"] * 200))
    found = Comparisons(chosen).differences(better, worse, "rouge_l")[""]
    error = (0.5 * 0.5 / 200) ** 0.5
    assert found.interval.value == 0.5
    assert found.interval.low == pytest.approx(0.5 - 1.96 * error, abs=0.01)
    assert found.interval.high == pytest.approx(0.5 + 1.96 * error, abs=0.01)
    assert found.standard_error == pytest.approx(error, rel=0.1)
    assert found.detectable == pytest.approx(2.8 * error, rel=0.1)
    same = Comparisons(chosen).differences(worse, worse, "rouge_l")[""]
    assert (same.interval, same.p) == (Interval(0.0, 0.0, 0.0), 1.0)


def test_items_of_one_document_weigh_as_one() -> None:
    plan = recipe("rouge_l", cases=["one"])
    apart = [record(f"n{i}", "one", f"text {i}", "yes") for i in range(120)]
    together = [record(f"n{i}", "one", f"text {i}", "yes", source=f"mails#{i // 4}") for i in range(120)]
    texts = said(["yes" if i // 4 % 2 else "no" for i in range(120)])
    widths = []
    for chosen in (apart, together):
        ours, theirs = score(plan, chosen, texts), score(plan, chosen, said(["no"] * 120))
        widths.append(Comparisons(chosen).differences(ours, theirs, "rouge_l")[""].standard_error)
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.15)


def test_weighted_scores_equal_plain_ones_on_repeated_items() -> None:
    truth, predicted, values = list("1122331"), list("1213321"), [0.1, 0.4, 0.2, 0.9, 0.3, 0.7, 0.5]
    weights = resample(["a"] * 7, list("abcdefg"), seed=1, resamples=50)
    for row, f1, mean in zip(
        weights, weighted_macro_f1(weights, truth, predicted), weighted_mean(weights, values), strict=True
    ):
        drawn = [i for i, times in enumerate(row) for _ in range(int(times))]
        assert f1 == pytest.approx(macro_f1([truth[i] for i in drawn], [predicted[i] for i in drawn]))
        assert mean == pytest.approx(sum(values[i] for i in drawn) / 7)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_on_single_items_is_the_exact_sign_test(pairs: list[tuple[bool, bool]]) -> None:
    wins, losses = (sum(1 for pair in pairs if pair == side) for side in ((True, False), (False, True)))
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    found = mcnemar_test([a for a, _ in pairs], [b for _, b in pairs], [str(i) for i in range(len(pairs))])
    assert found == pytest.approx(expected)


def test_mcnemar_gives_a_document_one_vote() -> None:
    one, other = [True] * 10, [False] * 10
    assert mcnemar_test(one, other, ["d"] * 10) == 1.0
    assert mcnemar_test(one, other, [str(i) for i in range(10)]) == pytest.approx(2 / 2**10)


def test_randomization_counts_every_swap_of_few_documents() -> None:
    # Three documents, all better by 1: two of eight swaps are as far from zero.
    assert randomization_test([1.0, 1.0, 1.0], list("abc"), 0) == pytest.approx(0.25, abs=0.03)


def test_the_p_value_of_macro_f1_is_that_of_its_own_difference() -> None:
    """One system never says the rare label, the other does at the price of as many common ones: as many are right."""
    truth = ["1"] * 90 + ["2"] * 10
    plan = recipe("macro_f1", cases=["one"])
    chosen = [record(f"n{i}", "one", f"text {i}", label) for i, label in enumerate(truth)]
    never = score(plan, chosen, said(["1"] * 100))
    always = score(plan, chosen, said(["2"] * 10 + ["1"] * 80 + ["2"] * 10))
    found = Comparisons(chosen).differences(never, always, "macro_f1")[""]
    assert found.interval.high < -0.1 and found.p < 0.05
    assert Comparisons(chosen).differences(never, always, "accuracy")[""].p == 1.0, "McNemar's, of right answers"


def test_randomization_of_macro_f1_counts_the_swaps_of_few_documents() -> None:
    truth, ours, theirs = list("1212"), list("1211"), list("2121")
    clusters = ["a", "a", "b", "c"]
    scores = []
    for swapped in product((False, True), repeat=3):
        pairs = [(b, a) if swapped["abc".index(c)] else (a, b) for a, b, c in zip(ours, theirs, clusters, strict=True)]
        scores.append(macro_f1(truth, [a for a, _ in pairs]) - macro_f1(truth, [b for _, b in pairs]))
    expected = np.mean([abs(one) >= abs(scores[0]) - 1e-12 for one in scores])
    assert macro_f1_test(truth, ours, theirs, clusters, 0) == pytest.approx(expected, abs=0.03)
    assert macro_f1_test(truth, ours, ours, clusters, 0) == 1.0


def test_holm_as_by_hand() -> None:
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert adjusted == {"a": pytest.approx(0.06), "b": pytest.approx(0.03), "c": pytest.approx(0.06)}
    assert holm({"a": 0.9, "b": 0.8})["b"] == 1.0 and holm({}) == {}


def test_stated_rates_are_the_normal_distributions() -> None:
    assert detectable_effect(1.0) == pytest.approx(NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8))
    assert false_alarm_rate(1.0, 1.96) == pytest.approx(0.5, abs=1e-4)
    assert false_alarm_rate(1.0, 0.0) == pytest.approx(0.975) and false_alarm_rate(0.0, 0.0) == 0.0
    assert false_alarm_rate(0.01, 0.05) < 0.002


@pytest.mark.parametrize("name", ["summarization", "writing", "notifications"])
def test_where_nothing_changed_alarms_stay_at_the_stated_rate(name: str) -> None:
    chosen, one, other = stored(name)
    comparisons = Comparisons(chosen)
    found = [comparisons.differences(*unchanged(chosen, one, other, seed), one.metric) for seed in range(SEEDS)]
    # 200 tests at a rate of 5% give 19 alarms or more once in a thousand times; the bootstrap's interval is known to
    # be a little short with few items.
    outside = sum(not each[""].interval.low <= 0 <= each[""].interval.high for each in found)
    assert outside <= 22
    alarms = sum(any(part and test.adjusted < 0.05 for part, test in each.items()) for each in found)
    assert alarms <= 19
    for margin in (0.02, 0.05, 0.1):
        failed = sum(each[""].interval.low < -margin for each in found) / SEEDS
        stated = float(np.mean([each[""].false_alarms(margin) for each in found]))
        assert failed == pytest.approx(stated, abs=0.1), margin
