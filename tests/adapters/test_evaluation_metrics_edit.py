"""Scores against values computed by hand, and laws that hold for all texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.metrics_edit import edit_f05, edits, gleu, sari

words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", ","]), min_size=1, max_size=12).map(" ".join)


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


def test_gleu_by_hand() -> None:
    # Kept as it was: one gram, "He" and "home" are right, "go" should be gone: (2 - 1)/3; two grams: 0 of 2, smoothed.
    assert gleu("He go home", "He go home", ["He goes home"]) == pytest.approx((1 / 3 * 1 / 2) ** 0.25)
    assert gleu("He go home", "He goes home", ["He goes home"]) == 1.0
    assert gleu("He go home", "", ["He goes home"]) == 0.0


def test_gleu_punishes_a_short_answer_and_averages_references() -> None:
    # All of two words right, one is missing: exp(1 - 3/2).
    assert gleu("a b c", "a b", ["a b c"]) == pytest.approx(2.718281828 ** (1 - 3 / 2))
    one, other = gleu("a b", "a c", ["a c"]), gleu("a b", "a c", ["a b"])
    assert gleu("a b", "a c", ["a c", "a b"]) == pytest.approx((one + other) / 2)


def test_edits_are_runs_of_tokens_and_what_replaces_them() -> None:
    assert edits("He go to home .", "He goes home !") == {(1, 3, ("goes",)), (4, 5, ("!",))}
    assert edits("a b", "a b") == set()


def test_edit_f05_by_hand() -> None:
    source, reference = "She like cats and he like dog .", "She likes cats and he likes dogs ."
    assert edit_f05(source, reference, [reference]) == 1.0
    assert edit_f05(source, source, [reference]) == 0.0
    # One of two edits, and nothing else: P 1, R 1/2.
    half = "She likes cats and he like dog ."
    assert edit_f05(source, half, [reference]) == pytest.approx(1.25 * 0.5 / (0.25 + 0.5))
    # One right, one wrong: P 1/2, R 1/2.
    assert edit_f05(source, "She likes cats and she like dog .", [reference]) == pytest.approx(0.5)
    assert edit_f05(source, half, [reference, half]) == 1.0


def test_a_text_without_mistakes_is_to_be_left_alone() -> None:
    assert edit_f05("All is well .", "All is well .", ["All is well ."]) == 1.0
    assert edit_f05("All is well .", "All is fine .", ["All is well ."]) == 0.0


@given(words, words, st.lists(words, min_size=1, max_size=3))
def test_edit_scores_stay_between_zero_and_one(source: str, answer: str, references: list[str]) -> None:
    assert 0 <= edit_f05(source, answer, references) <= 1
    assert 0 <= gleu(source, answer, references) <= 1
    assert edit_f05(source, references[0], references) == 1.0
