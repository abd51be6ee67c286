"""Batching: every example once an epoch, budgets kept, the same seed the same batches."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.inference.models import load_tokenizer
from adapters.inference.types import Prompt
from adapters.training.batching import Batch, Encoded, Example, collate, encode, make_batches
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

BUDGET = 64
lengths = st.lists(st.integers(2, BUDGET), min_size=1, max_size=60)


def made(sizes: list[int]) -> list[Encoded]:
    """Examples that are recognised by their first token."""
    return [Encoded([number + 1] + [0] * (size - 1), completion_start=1) for number, size in enumerate(sizes)]


def members(batches: list[Batch]) -> list[int]:
    return [int(first) for batch in batches for first in batch.input_ids[:, 0]]


@given(lengths, st.integers(1, 3), st.integers(0, 2**32))
def test_every_example_once_an_epoch_within_the_budget(sizes: list[int], epochs: int, seed: int) -> None:
    batches = make_batches(made(sizes), BUDGET, epochs, seed)
    assert Counter(members(batches)) == dict.fromkeys(range(1, len(sizes) + 1), epochs)
    assert all(batch.input_ids.numel() <= BUDGET for batch in batches)
    assert sum(batch.tokens for batch in batches) == sum(sizes) * epochs


@given(lengths, st.integers(0, 2**32))
def test_seed_decides_the_batches(sizes: list[int], seed: int) -> None:
    first, second = (make_batches(made(sizes), BUDGET, 2, seed) for _ in range(2))
    assert [b.input_ids.tolist() for b in first] == [b.input_ids.tolist() for b in second]


@given(lengths, st.floats(0.05, 3))
def test_a_fraction_of_an_epoch_is_a_fraction_of_its_batches(sizes: list[int], epochs: float) -> None:
    whole = len(make_batches(made(sizes), BUDGET, 1, seed=7))
    some = len(make_batches(made(sizes), BUDGET, epochs, seed=7))
    assert epochs * whole - 1e-6 <= some < epochs * whole + 1
    assert some == len(make_batches(made(sizes), BUDGET, int(epochs) or epochs, seed=7)) or epochs > 1


def test_epochs_differ_in_order_and_company() -> None:
    batches = make_batches(made([8] * 32), BUDGET, 2, seed=0)
    half = len(batches) // 2
    assert members(batches[:half]) != members(batches[half:])
    company = [{frozenset(b.input_ids[:, 0].tolist()) for b in part} for part in (batches[:half], batches[half:])]
    assert company[0] != company[1]


def test_padding_is_low_where_lengths_differ() -> None:
    batches = make_batches(made([4, 30, 5, 31, 4, 32, 5, 29] * 8), 128, 1, seed=0)
    padded = sum(batch.input_ids.numel() for batch in batches)
    assert sum(batch.tokens for batch in batches) / padded > 0.9


def test_masks_and_positions() -> None:
    batch = collate([Encoded([5, 6, 7, 8], completion_start=2), Encoded([9, 3], completion_start=1)], pad_id=1)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [9, 3, 1, 1]]
    assert batch.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.loss_mask.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.targets.tolist() == [7, 8, 3]
    assert batch.input_ids.dtype == torch.long


def test_shared_prefix_ends_at_a_difference_or_at_what_is_learnt() -> None:
    rows = [Encoded([5, 6, 7, 8, 9], 4), Encoded([5, 6, 7, 2, 9, 1], 4)]
    assert collate(rows).shared_prefix == 3
    assert collate(rows[:1]).shared_prefix == 0
    assert collate([Encoded([5, 6, 7, 8], 2)] * 3).shared_prefix == 1, "the position that predicts is not shared"


def test_encoding_learns_the_completion_and_its_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tiny_base(tmp_path))
    examples = [Example(Prompt("s", "hello"), "fine"), Example(Prompt("s", "hello " * 200), "fine")]
    encoded, left_out = encode(tokenizer, examples, max_tokens=100)
    assert left_out == 1 and len(encoded) == 1
    assert tokenizer.decode(collate(encoded).targets) == "fine<|im_end|>"


def test_nothing_to_train_on_is_told() -> None:
    with pytest.raises(FactoryError, match="no example to train on"):
        make_batches([], BUDGET)
    with pytest.raises(FactoryError, match="an example has 65 tokens, over batch_tokens 64"):
        make_batches(made([65]), BUDGET)
