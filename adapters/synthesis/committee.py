"""The choice among all teachers' candidates for one document, and when it is left to people.

Candidates that passed every filter are ranked together by the mean of three figures from 0 to 1: the scorer's
probability, groundedness, and agreement with the other survivors (minimum Bayes risk with the overlap of words as the
gain: Kumar and Byrne 2004). The likelier one wins where these are equal.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.inference.types import Answer
from adapters.synthesis.facts import is_named, names, numbers, vocabulary, words

_ALIKE = 0.5


@dataclass
class Candidate:
    """One answer of a teacher to one document, what was found about it, and what becomes of it.

    `verdict` is chosen, outvoted, rejected, or queued where people are to decide.
    """

    teacher: str
    phrasing: int
    number: int
    answer: Answer
    target: str
    reasons: dict[str, str]
    groundedness: float = 0.0
    score: float = 0.0
    agreement: float = 0.0
    verdict: str = field(default="rejected")

    @property
    def rank(self) -> float:
        """What survivors are ordered by."""
        return (self.score + self.groundedness + self.agreement) / 3


def decide(candidates: Sequence[Candidate], tie: float) -> str | None:
    """Give each candidate its agreement and verdict; returns why people must decide, or None."""
    survivors = [candidate for candidate in candidates if not candidate.reasons]
    for one in survivors:
        others = [other.target for other in survivors if other is not one]
        one.agreement = sum(overlap(one.target, other) for other in others) / len(others) if others else 0.0
        one.verdict = "outvoted"
    survivors.sort(key=lambda one: (-one.rank, -one.answer.logprob, one.teacher, one.number))
    if not survivors:
        return None
    best, rest = survivors[0], survivors[1:]
    for other in rest:
        if best.rank - other.rank >= tie:
            break
        why = contradiction(best.target, other.target)
        if why:
            best.verdict = other.verdict = "queued"
            return why
    best.verdict = "chosen"
    return None


def contradiction(one: str, other: str) -> str | None:
    """Why two candidates cannot both be right to a reader: much the same words, with other numbers or names."""
    if overlap(one, other) < _ALIKE:
        return None
    strange = [number.written for number in numbers(one) if number.certain and not number.values & _values(other)]
    known = vocabulary(other)
    strange += [name.word for name in names(one) if not name.opening and not is_named(name.word, known)]
    return f"as good as another one that has no {', '.join(strange[:3])}" if strange and _has_facts(other) else None


def overlap(one: str, other: str) -> float:
    """F1 of two texts' words."""
    mine, theirs = Counter(words(one)), Counter(words(other))
    return 2 * (mine & theirs).total() / max(mine.total() + theirs.total(), 1)


def _values(text: str) -> frozenset[str]:
    return frozenset(value for number in numbers(text) for value in number.values)


def _has_facts(text: str) -> bool:
    return any(number.certain for number in numbers(text)) or any(not name.opening for name in names(text))
