"""Near duplicates are found whatever their order, and texts that only share a subject are not."""

import random

import pytest

from adapters.data.duplicates import NearDuplicates

VOCABULARY = [f"w{number}" for number in range(3000)]


def text(seed: int, length: int = 60) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=length)


def always(position: int) -> bool:
    return True


def test_one_word_changed_is_nearly_the_same_and_half_is_not() -> None:
    words = text(1)
    index = NearDuplicates(0.8)
    assert index.add(" ".join(words), always) is None
    changed = [*words[:30], "other", *words[31:]]
    near = index.add(" ".join(changed).upper() + "!", always)
    assert near is not None
    assert near.position == 0
    assert near.similarity == pytest.approx(55 / 61)
    assert index.add(" ".join(words[:30] + text(2, 30)), always) is None


def test_only_those_that_count_are_compared() -> None:
    index = NearDuplicates(0.8)
    assert index.add("the same few words again", always) is None
    assert index.add("the same few words again", lambda position: False) is None
    near = index.add("The same few words again.", lambda position: position == 1)
    assert near is not None
    assert (near.position, near.similarity) == (1, 1.0)


def test_short_and_empty_texts() -> None:
    index = NearDuplicates(0.8)
    assert index.add("yes", always) is None
    assert index.add("no", always) is None
    assert index.add("Yes!", always) is not None
    assert index.add("...", always) is None
    assert index.add("?", always) is not None, "nothing but marks is nothing but marks"


@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8, 0.9])
def test_nearly_all_pairs_above_the_threshold_are_found(threshold: float) -> None:
    index = NearDuplicates(threshold)
    originals = [text(seed, 80) for seed in range(300)]
    for words in originals:
        assert index.add(" ".join(words), always) is None
    found = 0
    for words in originals:
        # Cutting the end off leaves a similarity just above the threshold.
        cut = words[: int(78 * (threshold + 0.03)) + 2]
        found += index.add(" ".join(cut), lambda position: position < len(originals)) is not None
    assert found >= 0.97 * len(originals)
