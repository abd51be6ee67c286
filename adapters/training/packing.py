"""Sequences as one row of tokens without padding, in which equal beginnings lie once.

Causal attention makes a beginning the same in every sequence that has it: a system message, an instruction, or a whole
prompt that has several answers. So it is computed once, and its gradient is the sum over all that go on from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from adapters.inference.packed_attention import Segment
from adapters.training.batching import Encoded

# A shorter beginning costs more as a segment of its own than it saves.
_SHORTEST_PREFIX = 16


@dataclass(frozen=True)
class Packed:
    """A row of N tokens: ids and positions int64 [N]; `learnt` [M] are the places whose next token is learnt.

    `learnt` goes through the sequences in their order; a place occurs in it once for each sequence that learns there.
    """

    ids: Tensor
    positions: Tensor
    learnt: Tensor
    segments: tuple[Segment, ...]


def pack(sequences: Sequence[Encoded], device: torch.device | str = "cpu") -> Packed:
    """The sequences as one row. The last token of each is left out: nothing follows that it could predict."""
    row = _Row([sequence.ids[:-1] for sequence in sequences])
    row.place(list(range(len(sequences))), 0, ())
    learnt = [
        place
        for sequence, places in zip(sequences, row.places, strict=True)
        for place in places[max(sequence.completion_start - 1, 0) :]
    ]
    ids, positions, chosen = (torch.tensor(values, device=device) for values in (row.ids, row.positions, learnt))
    return Packed(ids, positions, chosen, tuple(row.segments))


class _Row:
    def __init__(self, sequences: list[list[int]]) -> None:
        self.sequences = sequences
        self.places: list[list[int]] = [[] for _ in sequences]
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []

    def place(self, members: list[int], depth: int, prefix: tuple[tuple[int, int], ...]) -> None:
        """Place what the members, which are equal up to `depth`, have from there on."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for member in members:
            alike.setdefault(tuple(self.sequences[member][depth : depth + _SHORTEST_PREFIX]), []).append(member)
        for beginning, group in alike.items():
            if len(group) == 1 or len(beginning) < _SHORTEST_PREFIX:
                for member in group:
                    self._segment([member], depth, len(self.sequences[member]), prefix)
                continue
            columns = zip(*(self.sequences[member][depth:] for member in group), strict=False)
            stop = depth + sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
            shared = self._segment(group, depth, stop, prefix)
            self.place(group, stop, (*prefix, shared))

    def _segment(
        self, members: list[int], depth: int, stop: int, prefix: tuple[tuple[int, int], ...]
    ) -> tuple[int, int]:
        start = len(self.ids)
        end = start + stop - depth
        if end > start:
            self.ids += self.sequences[members[0]][depth:stop]
            self.positions += range(depth, stop)
            self.segments.append(Segment(start, end, prefix))
        for member in members:
            self.places[member] += range(start, end)
        return start, end
