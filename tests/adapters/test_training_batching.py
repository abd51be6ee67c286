"""Batching: every example once an epoch, budgets kept, the same seed the same batches."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.inference.models import load_tokenizer
from adapters.inference.types import Prompt
from adapters.training.batching import Batch, Encoded, Example, encode, make_batches, pad
from adapters.training.packing import pack
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

BUDGET = 64
lengths = st.lists(st.integers(2, BUDGET), min_size=1, max_size=60)


def made(sizes: list[int]) -> list[Encoded]:
    """Examples that are recognised by their first token."""
    return [Encoded([number + 1] + [0] * (size - 1), completion_start=1) for number, size in enumerate(sizes)]


def members(batches: list[Batch]) -> list[int]:
    return [sequence.ids[0] for batch in batches for sequence in batch.sequences]


@given(lengths, st.integers(1, 3), st.integers(0, 2**32), st.booleans())
def test_every_example_once_an_epoch_within_the_budget(sizes: list[int], epochs: int, seed: int, packed: bool) -> None:
    batches = make_batches(made(sizes), BUDGET, epochs, seed, packed)
    assert Counter(members(batches)) == dict.fromkeys(range(1, len(sizes) + 1), epochs)
    assert all((batch.tokens if packed else pad(batch.sequences)[0].numel()) <= BUDGET for batch in batches)
    assert sum(batch.tokens for batch in batches) == sum(sizes) * epochs


@given(lengths, st.integers(0, 2**32))
def test_seed_decides_the_batches(sizes: list[int], seed: int) -> None:
    first, second = (make_batches(made(sizes), BUDGET, 2, seed) for _ in range(2))
    assert first == second


@given(lengths, st.floats(0.05, 3))
def test_a_fraction_of_an_epoch_is_a_fraction_of_its_batches(sizes: list[int], epochs: float) -> None:
    """Of padded batches, which are as many in every epoch."""
    whole = len(make_batches(made(sizes), BUDGET, 1, 7, packed=False))
    some = len(make_batches(made(sizes), BUDGET, epochs, 7, packed=False))
    assert epochs * whole - 1e-6 <= some < epochs * whole + 1


@given(lengths, st.integers(1, 500))
def test_a_token_budget_ends_with_the_batch_that_reaches_it(sizes: list[int], budget: int) -> None:
    batches = make_batches(made(sizes), BUDGET, 1, seed=3, token_budget=budget)
    assert sum(b.tokens for b in batches) >= budget > sum(b.tokens for b in batches[:-1])


def test_epochs_differ_in_order_and_company() -> None:
    batches = make_batches(made([8] * 32), BUDGET, 2, seed=0)
    half = len(batches) // 2
    assert members(batches[:half]) != members(batches[half:])
    company = [{frozenset(members([b])) for b in part} for part in (batches[:half], batches[half:])]
    assert company[0] != company[1]


def test_padding_is_low_where_lengths_differ() -> None:
    batches = make_batches(made([4, 30, 5, 31, 4, 32, 5, 29] * 8), 128, 1, 0, packed=False)
    padded = sum(pad(batch.sequences)[0].numel() for batch in batches)
    assert sum(batch.tokens for batch in batches) / padded > 0.9


def test_padded_rows_and_targets() -> None:
    sequences = (Encoded([5, 6, 7, 8], completion_start=2), Encoded([9, 3], completion_start=1))
    ids, learnt = pad(sequences)
    assert ids.tolist() == [[5, 6, 7, 8], [9, 3, 0, 0]] and ids.dtype == torch.long
    assert learnt.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert Batch(sequences).targets.tolist() == [7, 8, 3]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(0, 2)), min_size=1, max_size=8))
def test_a_packed_row_spells_every_sequence(shapes: list[tuple[int, int, int]]) -> None:
    """Sequences that share a beginning of any length, go on differently, and may be equal."""
    ids = [[7] * shared + [100 + kind] * rest + [1] for shared, rest, kind in shapes]
    sequences = [Encoded(values, min(3, len(values) - 1)) for values in ids]
    row = pack(sequences)
    spelled = []
    for segment in row.segments:
        ranges = [*segment.prefix, (segment.start, segment.stop)]
        assert all(stop <= segment.start for _, stop in segment.prefix)
        places = [place for start, stop in ranges for place in range(start, stop)]
        assert row.positions[places].tolist() == list(range(len(places)))
        spelled.append(row.ids[places].tolist())
    assert all(values[:-1] in [known[: len(values) - 1] for known in spelled] for values in ids if len(values) > 1)
    following = Batch(tuple(sequences)).targets.tolist()
    assert len(row.learnt) == len(following)
    learnt = iter(row.learnt.tolist())
    for values, start in sequences:
        for place, expected in enumerate(values[max(start - 1, 0) : -1], max(start - 1, 0)):
            at = next(learnt)
            assert row.ids[at] == expected and row.positions[at] == place
    assert len(row.ids) <= sum(len(values) - 1 for values in ids)


def test_common_beginnings_lie_in_the_row_once() -> None:
    system, instruction = list(range(100, 120)), list(range(200, 230))
    answers = [Encoded([*system, *instruction, 5, 6, last, 9], 50) for last in (7, 8)]
    other = Encoded([*system, *range(300, 310)], 25)
    row = pack([*answers, other])
    assert len(row.ids) == 20 + (30 + 2) + 2 * 1 + 9, "two answers begin alike, too"
    assert [len(segment.prefix) for segment in row.segments] == [0, 1, 2, 2, 1]


def test_encoding_learns_the_completion_and_its_end(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tiny_base(tmp_path))
    examples = [Example(Prompt("s", "hello"), "fine"), Example(Prompt("s", "hello " * 200), "fine")]
    encoded, left_out = encode(tokenizer, examples, max_tokens=100)
    assert left_out == 1 and len(encoded) == 1
    assert tokenizer.decode(Batch(tuple(encoded)).targets) == "fine<|im_end|>"


def test_nothing_to_train_on_is_told() -> None:
    with pytest.raises(FactoryError, match="no example to train on"):
        make_batches([], BUDGET)
    with pytest.raises(FactoryError, match="an example has 65 tokens, over batch_tokens 64"):
        make_batches(made([65]), BUDGET)
