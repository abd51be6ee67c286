"""Evaluation texts are found in other texts by their n-grams, whatever stands around them, and common usage is not."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.contamination import EvaluationNgrams, Match, Matches
from adapters.data.ngrams import ngram_codes, word_codes, words

VOCABULARY = [f"w{number}" for number in range(5000)]


def text(seed: int, length: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def found(evaluation: dict[str, str], others: dict[str, str], common: int = 1000) -> Matches:
    return EvaluationNgrams(evaluation.items(), 4, 13).matches(others.items, common)


def matches(evaluation: dict[str, str], others: dict[str, str], common: int = 1000) -> list[Match]:
    return list(found(evaluation, others, common).by_text.values())


@given(st.lists(st.sampled_from(VOCABULARY[:3]), max_size=30), st.integers(1, 6))
def test_equal_ngrams_have_equal_codes_and_no_others(spoken: list[str], n: int) -> None:
    grams = [tuple(spoken[start : start + n]) for start in range(len(spoken) - n + 1)]
    codes = ngram_codes(word_codes(spoken), n).tolist()
    assert len(codes) == len(grams)
    assert len(set(zip(grams, codes, strict=True))) == len(set(grams)) == len(set(codes))


def test_thirteen_words_of_a_long_text_are_enough_and_twelve_are_not() -> None:
    secret = text(1, 60).split()
    for shared, leaks in ((13, True), (12, False)):
        leak = f"{text(2, 40)} {' '.join(secret[20 : 20 + shared]).upper()}, {text(3, 40)}"
        result = matches({"test": " ".join(secret)}, {"leak": leak, "clean": text(4, 80)})
        assert [(one.text, one.evaluation) for one in result] == ([("leak", "test")] if leaks else [])
        if leaks:
            assert result[0].ngram == " ".join(secret[20:33])


@pytest.mark.parametrize(("length", "leaks"), [(3, False), (4, True), (9, True)])
def test_a_short_text_counts_whole(length: int, leaks: bool) -> None:
    secret = text(1, length)
    result = matches({"test": secret}, {"leak": f"{text(2, 30)} {secret} {text(3, 30)}"})
    assert bool(result) == leaks


def test_common_usage_proves_nothing() -> None:
    phrase = "please do not hesitate to contact me"
    others = {f"mail-{number}": f"{text(number, 20)} {phrase}" for number in range(5)}
    assert len(matches({"test": phrase}, others, common=5)) == 5
    assert matches({"test": phrase}, others, common=4) == []


def test_every_text_of_either_side_has_one_proof() -> None:
    shared = text(9, 20)
    sets = {"a": shared, "b": shared, "c": text(8, 30)}
    result = found(sets, {"x": f"{shared} {shared}", "y": shared, "z": text(7, 30)})
    assert {name: one.evaluation for name, one in result.by_text.items()} == {"x": "a", "y": "a"}
    assert {name: one.text for name, one in result.by_evaluation.items()} == {"a": "x", "b": "x"}


def test_an_index_may_be_asked_again() -> None:
    index = EvaluationNgrams([("a", "one two three four")], 4, 13)
    others = {"x": "one two three four", "y": "and one two three four"}
    assert [len(index.matches(others.items, common).by_text) for common in (1, 2, 1, 2)] == [0, 2, 0, 2]


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words("The café, at 5:30 — isn't OPEN!") == ["the", "café", "at", "5", "30", "isn", "t", "open"]
