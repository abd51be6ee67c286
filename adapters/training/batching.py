"""Examples as token ids, and token ids as the batches of a training, each worth about the same number of tokens."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapters.inference.chat import answer_ids, chat_ids
from adapters.inference.types import Prompt
from infra.errors import FactoryError


class Example(NamedTuple):
    """What the model is asked, and what it shall answer."""

    prompt: Prompt
    completion: str


class Encoded(NamedTuple):
    """Token ids of one example; those from `completion_start` on are trained on."""

    ids: list[int]
    completion_start: int


@dataclass(frozen=True)
class Batch:
    """The sequences of one optimiser step, computed as one packed row or as padded rows: the result is the same."""

    sequences: tuple[Encoded, ...]
    packed: bool = True

    @property
    def targets(self) -> Tensor:
        """The token ids to predict, sequence after sequence: int64 [M]."""
        return torch.tensor([id for ids, start in self.sequences for id in ids[max(start, 1) :]])

    @property
    def tokens(self) -> int:
        """Tokens of the sequences; a beginning that they share counts in each."""
        return sum(len(sequence.ids) for sequence in self.sequences)


def encode(tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> tuple[list[Encoded], int]:
    """Examples as token ids with the model's chat template, and how many were left out as longer than `max_tokens`."""
    encoded: list[Encoded] = []
    for example in examples:
        prompt = chat_ids(tokenizer, example.prompt)
        ids = prompt + answer_ids(tokenizer, example.completion)
        if len(ids) <= max_tokens:
            encoded.append(Encoded(ids, len(prompt)))
    return encoded, len(examples) - len(encoded)


def pad(sequences: Sequence[Encoded], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Right-padded rows: ids int64 [B, T], and where the **next** token is one to learn, bool [B, T]."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = torch.zeros(len(sequences), length, dtype=torch.long)
    learnt = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, (values, start) in enumerate(sequences):
        ids[row, : len(values)] = torch.tensor(values)
        learnt[row, max(start - 1, 0) : len(values) - 1] = True
    return ids.to(device), learnt.to(device)


def make_batches(
    encoded: Sequence[Encoded],
    batch_tokens: int,
    epochs: float = 1.0,
    seed: int = 0,
    packed: bool = True,
    token_budget: int | None = None,
) -> list[Batch]:
    """All batches of a training, in order.

    In each epoch every example occurs once, in an order and company of its own; padded batches are of similar length.
    A fraction of an epoch is that fraction of its batches, rounded up. With `token_budget` the training ends with the
    batch that reaches it, whatever `epochs` says.

    Raises:
        FactoryError: there is nothing to train on, or an example alone is over `batch_tokens`.
    """
    if not encoded:
        raise FactoryError("no example to train on is left; look at the data report for what was refused")
    longest = max(len(example.ids) for example in encoded)
    if longest > batch_tokens:
        raise FactoryError(f"an example has {longest} tokens, over batch_tokens {batch_tokens}; lower max_tokens")
    generator = random.Random(seed)
    batches: list[Batch] = []
    if token_budget is not None:
        tokens = 0
        while True:
            for batch in _epoch(encoded, batch_tokens, generator, packed):
                batches.append(batch)
                tokens += batch.tokens
                if tokens >= token_budget:
                    return batches
    remaining = epochs
    while remaining > 0:
        epoch = _epoch(encoded, batch_tokens, generator, packed)
        batches += epoch[: len(epoch) if remaining >= 1 else -int(-remaining * len(epoch) // 1)]
        remaining -= 1
    return batches


def _epoch(encoded: Sequence[Encoded], batch_tokens: int, generator: random.Random, packed: bool) -> list[Batch]:
    """Every example once, in batches of at most `batch_tokens`, padding included."""
    order = list(range(len(encoded)))
    generator.shuffle(order)
    if not packed:
        order.sort(key=lambda i: -len(encoded[i].ids))
    groups: list[list[Encoded]] = []
    room = 0
    for i in order:
        # Sorted from the longest on, so the first of a padded group says how wide all of it is.
        size = len((encoded[i] if packed or not groups else groups[-1][0]).ids)
        if room < size:
            groups.append([])
            room, size = batch_tokens, len(encoded[i].ids)
        groups[-1].append(encoded[i])
        room -= size
    if not packed:
        generator.shuffle(groups)
    return [Batch(tuple(group), packed) for group in groups]
