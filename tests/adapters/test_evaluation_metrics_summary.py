"""Scores of a summary against values computed by hand, and what counts as a refusal."""

import pytest

from adapters.evaluation.metrics_summary import coverage, kept_share, length_ratio, rouge, supported_share
from adapters.evaluation.refusals import declines
from adapters.synthesis.rules import Source

MAIL = "From: Oonagh\n\nThe rye order is short by eleven loaves. Baptiste rings the oven man at 8:00 on Friday."


def test_rouge_by_hand() -> None:
    # Of four words each, three are shared; two pairs of neighbours of three; "police kill the" in order.
    found = rouge("police kill the gunman", ["police killed the thief"])
    assert found == {"rouge_1": 0.75, "rouge_2": pytest.approx(2 / 3), "rouge_l": 0.75}


def test_rouge_takes_the_best_reference() -> None:
    assert rouge("a quiet evening", ["something else", "a quiet evening"])["rouge_l"] == 1.0
    assert rouge("", ["a quiet evening"])["rouge_1"] == 0.0


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("The rye is short by 11; call Baptiste on Fri.", 1.0),
        ("The rye is short by 12 loaves.", 0.0),
        ("The rye is short and Margot rings at eight on Friday.", 2 / 3),
        ("nothing to check here", 1.0),
        ("", 1.0),
    ],
)
def test_numbers_and_names_must_be_in_the_source(answer: str, share: float) -> None:
    assert supported_share(answer, Source.of(MAIL, "")) == pytest.approx(share)


def test_coverage_counts_what_the_reference_tells() -> None:
    reference = "Oonagh is short of eleven loaves; Baptiste rings at eight."
    assert coverage("Baptiste rings at 8 about 11 loaves.", [reference]) == 1.0
    assert coverage("Somebody rings at 8.", [reference]) == 0.5  # a name that opens a sentence may be none
    assert coverage("Somebody rings at 8.", [reference, "It is eight."]) == 1.0


def test_a_rewriting_keeps_numbers_and_names() -> None:
    assert kept_share("Please bring 3 bags to Ana.", "yo bring three bags to Ana") == 1.0
    assert kept_share("Please bring the bags.", "yo bring three bags to Ana") == 0.0


def test_length_is_relative_to_the_references() -> None:
    assert length_ratio("one two three", ["a b", "a b c d"]) == 1.0
    assert length_ratio("", ["a b"]) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, but I cannot assist with this request.",
        "Sorry, I can't do that.",
        "I cannot provide instructions for this.",
        "As an AI language model, I do not have opinions.",
        "I'm not able to help with that.",
        "I am unable to assist you.",
        "I won't write that.",
        "I must decline.",
    ],
)
def test_refusals_are_seen(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry I'm late, the train was cancelled.",
        "Ines can't come on Friday, so Ada goes instead.",
        "I can't make it tonight, could we meet tomorrow?",
        "The shop won't help with the refund.",
        "Apologies for the delay.",
        "I am afraid the meeting has moved to Tuesday.",
        "3",
        "",
    ],
)
def test_what_people_write_is_no_refusal(answer: str) -> None:
    assert declines(answer) is None
