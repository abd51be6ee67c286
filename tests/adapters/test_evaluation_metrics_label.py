"""Scores of a classifier against values computed by hand and by scikit-learn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, f1_score

from adapters.evaluation.metrics_label import (
    NO_LABEL,
    brier,
    calibration_error,
    confidence,
    error_cost,
    macro_f1,
    parse_label,
)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("2", "2"),
        ("Priority: 3.", "3"),
        ("2 out of 3", "2"),
        ("12 or 33", NO_LABEL),
        ("I cannot say", NO_LABEL),
        ("", NO_LABEL),
    ],
)
def test_the_first_allowed_token_is_the_label(answer: str, label: str) -> None:
    assert parse_label(answer, ["1", "2", "3"]) == label


def test_labels_of_words_ignore_case_and_prefer_the_longer() -> None:
    assert parse_label("it is Very High, not low", ["high", "very high", "low"]) == "very high"


def test_macro_f1_counts_an_unread_answer_as_wrong() -> None:
    # 1: P 1, R 1/2 -> 2/3. 2: P 1/1, R 1 -> 1. The unread answer lowers the recall of 1.
    assert macro_f1(["1", "1", "2"], ["1", NO_LABEL, "2"]) == pytest.approx((2 / 3 + 1) / 2)


@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("123")), min_size=1, max_size=30))
def test_macro_f1_is_scikit_learns_where_all_labels_occur(pairs: list[tuple[str, str]]) -> None:
    truth, predicted = [t for t, _ in pairs] + list("123"), [p for _, p in pairs] + list("123")
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_errors_cost_what_the_recipe_says() -> None:
    costs = {"3": {"1": 4.0, "2": 2.0}, "2": {"1": 2.0}}
    assert error_cost("3", "3", costs) == 0.0
    assert error_cost("3", "1", costs) == 1.0  # the dearest
    assert error_cost("3", "2", costs) == 0.5
    assert error_cost("1", "3", costs) == 0.25  # unsaid: 1 of 4
    assert error_cost("3", NO_LABEL, costs) == 1.0 and error_cost("1", NO_LABEL, costs) == 0.25
    assert error_cost("1", "2", {}) == 1.0


def test_confidence_is_the_probability_of_the_whole_answer() -> None:
    assert confidence(2, math.log(0.5)) == pytest.approx(0.25)
    assert confidence(3, 0.0) is None


def test_calibration_error_by_hand() -> None:
    # Bin 0.9: stated 0.95 twice, right once: gap 0.9. Bin 0.5: stated 0.55, right: gap 0.45. Weighted by items.
    assert calibration_error([0.95, 0.95, 0.55], [True, False, True]) == pytest.approx((0.9 + 0.45) / 3)
    assert calibration_error([1.0, 1.0], [True, True]) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=20))
def test_the_mean_brier_score_is_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    mean = sum(brier(p, right) for p, right in pairs) / len(pairs)
    expected = brier_score_loss([right for _, right in pairs], [p for p, _ in pairs], labels=[False, True])
    assert mean == pytest.approx(expected)
