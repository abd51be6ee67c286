"""Human targets made wrong, for the scorer to learn from.

The tests of the filters corrupt summaries by other code (`tests/benchmarks/corruptions.py`), so that a good score there
says something about mistakes that nobody trained on.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from adapters.recipe import Task
from adapters.synthesis.evidence import sentences
from adapters.synthesis.facts import names

_KINDS_EACH = 4


class Pair(NamedTuple):
    """A document, a target of it, and the task that this target is for."""

    document: str
    target: str
    task: Task = "summarize"


def _of_another(pair: Pair, other: Pair, chance: random.Random) -> str:
    return other.target


def _half_of_another(pair: Pair, other: Pair, chance: random.Random) -> str:
    mine, theirs = pair.target.split(), other.target.split()
    return " ".join(mine[: len(mine) // 2] + theirs[len(theirs) // 2 :])


def _ends_with_another(pair: Pair, other: Pair, chance: random.Random) -> str:
    return f"{sentences(pair.target)[0]} {sentences(other.target)[-1]}"


def _names_of_another(pair: Pair, other: Pair, chance: random.Random) -> str:
    text = pair.target
    theirs = [name.word for name in names(other.document)]
    for name in {name.word for name in names(pair.target) if not name.opening}:
        text = text.replace(name, chance.choice(theirs)) if theirs else text
    return text


def _digits_moved(pair: Pair, other: Pair, chance: random.Random) -> str:
    return "".join(str((int(one) + chance.randint(1, 8)) % 10) if one.isdecimal() else one for one in pair.target)


def _contradicted(pair: Pair, other: Pair, chance: random.Random) -> str:
    changes = (
        (" not ", " "), (" never ", " always "), (" no ", " a "), (" cannot ", " can "), (" without ", " with "),
        (" is ", " is no longer "), (" are ", " are never "), (" will ", " will never "), (" has ", " has no "),
        (" and ", " but not "),
    )  # fmt: skip
    return next((pair.target.replace(old, new, 1) for old, new in changes if old in pair.target), pair.target)


def _parts_swapped(pair: Pair, other: Pair, chance: random.Random) -> str:
    items = pair.target.split()
    place = chance.randrange(1, max(len(items) - 1, 2))
    return " ".join(items[place:] + items[:place])


def _words_of_another(pair: Pair, other: Pair, chance: random.Random) -> str:
    items, theirs = pair.target.split(), other.document.split()
    for place in chance.sample(range(len(items)), k=max(len(items) // 4, 1)):
        items[place] = chance.choice(theirs)
    return " ".join(items)


KINDS: dict[str, Callable[[Pair, Pair, random.Random], str]] = {
    function.__name__.strip("_"): function
    for function in (
        _of_another,
        _half_of_another,
        _ends_with_another,
        _names_of_another,
        _digits_moved,
        _contradicted,
        _parts_swapped,
        _words_of_another,
    )
}


def negatives(pairs: Sequence[Pair], chance: random.Random) -> list[list[tuple[str, str]]]:
    """For each pair its target made wrong by some kinds that change it: (kind, text)."""
    made: list[list[tuple[str, str]]] = []
    for pair in pairs:
        other = chance.choice(pairs)
        texts = [(kind, KINDS[kind](pair, other, chance)) for kind in chance.sample(sorted(KINDS), _KINDS_EACH)]
        made.append([(kind, text) for kind, text in texts if text != pair.target])
    return made
