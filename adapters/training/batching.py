"""Examples as token ids, and token ids as padded batches of similar length.

Sorting by length keeps padding low; batches keep under a budget of tokens, padding included, so that every step costs
about the same. Padding is on the right, where a causal model cannot see it.
"""

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
    """Right-padded sequences, every field [B, T].

    `input_ids` and `position_ids` are int64; `attention_mask` is True on real tokens; `loss_mask` is True where the
    **next** token is one to learn, so logits at those positions face `targets`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    loss_mask: Tensor
    position_ids: Tensor

    @property
    def targets(self) -> Tensor:
        """The token ids to predict at the positions of `loss_mask`, in row order: [N]."""
        return self.input_ids[:, 1:][self.loss_mask[:, :-1]]

    @property
    def shared_prefix(self) -> int:
        """Length of the beginning that all rows have in common and nothing is learnt in; 0 for a single row."""
        if len(self.input_ids) == 1:
            return 0
        ends = (self.input_ids != self.input_ids[:1]).any(0) | self.loss_mask.any(0)
        return int(ends.int().argmax())

    @property
    def tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.attention_mask.sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.loss_mask.to(device),
            self.position_ids.to(device),
        )


def encode(tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> tuple[list[Encoded], int]:
    """Examples as token ids with the model's chat template, and how many were left out as longer than `max_tokens`."""
    encoded: list[Encoded] = []
    for example in examples:
        prompt = chat_ids(tokenizer, example.prompt)
        ids = prompt + answer_ids(tokenizer, example.completion)
        if len(ids) <= max_tokens:
            encoded.append(Encoded(ids, len(prompt)))
    return encoded, len(examples) - len(encoded)


def collate(examples: Sequence[Encoded], pad_id: int = 0) -> Batch:
    """One right-padded batch of the examples, in their order."""
    length = max(len(example.ids) for example in examples)
    input_ids = torch.full((len(examples), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros((len(examples), length), dtype=torch.bool)
    loss_mask = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, (ids, start) in enumerate(examples):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = True
        loss_mask[row, max(start - 1, 0) : len(ids) - 1] = True
    position_ids = torch.arange(length).expand(len(examples), -1).contiguous()
    return Batch(input_ids, attention_mask, loss_mask, position_ids)


def make_batches(
    encoded: Sequence[Encoded], batch_tokens: int, epochs: float = 1.0, seed: int = 0, pad_id: int = 0
) -> list[Batch]:
    """All batches of a training, in order.

    In each epoch every example occurs once; examples of equal length meet others in each epoch, and the order of the
    batches is drawn anew. A fraction of an epoch is that fraction of its batches, rounded up.

    Raises:
        FactoryError: there is nothing to train on, or an example alone is over `batch_tokens`.
    """
    if not encoded:
        raise FactoryError("no example to train on is left; look at the data report for what was refused")
    longest = max(len(example.ids) for example in encoded)
    if longest > batch_tokens:
        raise FactoryError(f"an example has {longest} tokens, over batch_tokens {batch_tokens}; lower max_tokens")
    batches: list[Batch] = []
    remaining = epochs
    generator = random.Random(seed)
    while remaining > 0:
        groups = _grouped(encoded, batch_tokens, generator)
        generator.shuffle(groups)
        taken = len(groups) if remaining >= 1 else -int(-remaining * len(groups) // 1)
        batches += [collate([encoded[i] for i in group], pad_id) for group in groups[:taken]]
        remaining -= 1
    return batches


def _grouped(encoded: Sequence[Encoded], batch_tokens: int, generator: random.Random) -> list[list[int]]:
    """Indices of examples in groups whose padded size is at most `batch_tokens`, longest first."""
    order = list(range(len(encoded)))
    generator.shuffle(order)
    order.sort(key=lambda i: -len(encoded[i].ids))
    groups: list[list[int]] = []
    width = 0
    for i in order:
        if not groups or (len(groups[-1]) + 1) * width > batch_tokens:
            groups.append([])
            width = len(encoded[i].ids)
        groups[-1].append(i)
    return groups
