"""Stacks of notifications, put together from single ones, for teachers to write digests of."""

import random
from collections.abc import Sequence

from adapters.records import Record, text_digest

_SIZES = (3, 6)


def stack_up(records: Sequence[Record], seed: int) -> list[Record]:
    """Records of one notification each as stacks of three to six of the same use case, licence and source.

    Each record is in one stack, which has the id of its first; what is left over when they run out stays out.
    """
    chance = random.Random(seed)
    kinds: dict[tuple[str, str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: (text_digest(record.input), record.id)):
        kinds.setdefault((record.use_case, record.license, record.source), []).append(record)
    stacks = []
    for kind in sorted(kinds):
        waiting = kinds[kind]
        while len(waiting) >= _SIZES[0]:
            size = min(chance.randint(*_SIZES), len(waiting))
            taken, waiting = waiting[:size], waiting[size:]
            stacks.append(taken[0].model_copy(update={"input": "\n".join(record.input for record in taken)}))
    return stacks


def stack_members(stacks: Sequence[Record], records: Sequence[Record]) -> dict[str, list[str]]:
    """The ids of the records that each stack was made of, by the stack's id."""
    ids: dict[tuple[str, str], list[str]] = {}
    for record in records:
        ids.setdefault((record.use_case, record.input), []).append(record.id)
    return {
        stack.id: sorted(one for line in stack.input.split("\n") for one in ids[stack.use_case, line])
        for stack in stacks
    }
