"""Scores against values computed by hand, and laws that hold for all texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from adapters.evaluation.metrics import NO_LABEL, macro_f1, parse_label, rouge_l, sari

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ","]), min_size=1, max_size=12).map(" ".join)


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # Common: "police the gunman" is not in order; "police kill the" has length 3 of 4 and 4 words.
    assert rouge_l("police kill the gunman", ["police killed the thief"]) == pytest.approx(0.75)


def test_rouge_l_takes_the_best_reference() -> None:
    assert rouge_l("a quiet evening", ["something else", "a quiet evening"]) == 1.0
    assert rouge_l("", ["a quiet evening"]) == 0.0


def test_sari_by_hand_for_an_answer_that_copies() -> None:
    # Keep-F1 of 1, 2, 3 and 4 grams: 4/5, 2/3, 0, 1 (no 4-gram anywhere); delete and add: 0, 0, 0, 1.
    expected = (4 / 5 + 2 / 3 + 0 + 1 + 1 + 1) / 12
    assert sari("a b c", "a b c", ["a b d"]) == pytest.approx(expected)


def test_sari_by_hand_for_a_half_right_answer() -> None:
    # Source a b c d, reference a b x, answer a b d.
    # n=1: keep {a,b,d} of wanted {a,b}: P 2/3, R 1 -> 4/5; delete {c} of {c,d}: P 1, R 1/2 -> 2/3; add none of {x}: 0.
    # n=2: keep {ab} -> 1; delete {bc,cd} of {bc,cd} -> 1; add {bd} of {bx}: 0.
    # n=3: keep nothing, nothing to keep -> 1; delete {abc,bcd} -> 1; add {abd} of {abx}: 0.
    # n=4: keep -> 1; delete {abcd} -> 1; add: nothing of nothing -> 1.
    keep, delete, add = (4 / 5 + 1 + 1 + 1) / 4, (2 / 3 + 1 + 1 + 1) / 4, (0 + 0 + 0 + 1) / 4
    assert sari("a b c d", "a b d", ["a b x"]) == pytest.approx((keep + delete + add) / 3)


def test_sari_weighs_what_only_some_references_keep() -> None:
    # Unigrams only differ in b, which one of two references keeps; source and answer counts are doubled.
    # Keeping it: keep P (1 + 1/2)/2, R 1; deleting it: delete P 1/2, R 1.
    kept = (2 * 0.75 / 1.75, 0.0, 1.0)  # b (count 2) is left to delete once, and nothing was deleted
    one_gram = sari("a b", "a b", ["a", "a b"])
    # n=2: keep {ab} half right: P 1/2, R 1 -> 2/3; delete: nothing done, something to do -> 0; add 1. n=3, 4: all 1.
    assert one_gram == pytest.approx((sum(kept) + (2 / 3 + 0 + 1) + 3 + 3) / 12)


def test_sari_lets_one_of_two_equal_words_go() -> None:
    assert sari("the the cat", "the cat", ["the cat"]) == 1.0


def test_sari_sees_case_and_punctuation() -> None:
    assert sari("hello tom, ok", "Hello Tom, ok.", ["Hello Tom, ok."]) == 1.0
    assert sari("hello tom, ok", "hello tom, ok", ["Hello Tom, ok."]) < 0.5


@given(words, words)
def test_sari_of_a_perfect_answer_is_one(source: str, reference: str) -> None:
    assert sari(source, reference, [reference]) == 1.0


@given(words, words, st.lists(words, min_size=1, max_size=3))
def test_sari_stays_between_zero_and_one(source: str, answer: str, references: list[str]) -> None:
    assert 0 <= sari(source, answer, references) <= 1
    assert sari(source, "", references) < 1


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
