"""Good texts made faulty, so that an adapter learns to correct them: no teacher is needed, the good text is the target.

The mistakes are those that people make when they write fast or in a foreign language: letters that are swapped, dropped
or doubled, words that sound alike, articles and endings that are missing, punctuation that is forgotten.
"""

import random
import re
from collections.abc import Callable

from adapters.inference.types import Answer
from adapters.records import Record
from adapters.synthesis.committee import Candidate

_ALIKE = (
    ("their", "there"), ("they're", "their"), ("your", "you're"), ("its", "it's"), ("it's", "its"), ("than", "then"),
    ("then", "than"), ("to", "too"), ("too", "to"), ("were", "where"), ("where", "were"), ("lose", "loose"),
    ("affect", "effect"), ("accept", "except"), ("quite", "quiet"), ("who's", "whose"), ("hear", "here"),
)  # fmt: skip
_SOUNDS = dict(_ALIKE)
_ARTICLE = re.compile(r"\b(?:a|an|the)\s+", re.IGNORECASE)
_ENDING = re.compile(r"\b([a-z]{3,}?)(?:s|ed|ing)\b")
_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")
_COMMA = re.compile(r",(?=\s)")
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_CAPITAL = re.compile(r"(?<=[.!?] )[A-Z]|\bI\b|^[A-Z]")
_SHARE = 12


def _swapped(match: re.Match[str], chance: random.Random) -> str:
    word = match[0]
    place = chance.randrange(1, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _dropped(match: re.Match[str], chance: random.Random) -> str:
    place = chance.randrange(1, len(match[0]) - 1)
    return match[0][:place] + match[0][place + 1 :]


def _doubled(match: re.Match[str], chance: random.Random) -> str:
    place = chance.randrange(1, len(match[0]) - 1)
    return match[0][:place] + match[0][place] + match[0][place:]


Mistake = tuple[re.Pattern[str], Callable[[re.Match[str], random.Random], str]]
MISTAKES: dict[str, Mistake] = {
    "swapped": (_LONG_WORD, _swapped),
    "dropped": (_LONG_WORD, _dropped),
    "doubled": (_LONG_WORD, _doubled),
    "sounds_alike": (re.compile(rf"\b(?:{'|'.join(_SOUNDS)})\b"), lambda match, chance: _SOUNDS[match[0]]),
    "no_article": (_ARTICLE, lambda match, chance: ""),
    "no_ending": (_ENDING, lambda match, chance: match[1]),
    "no_comma": (_COMMA, lambda match, chance: ""),
    "no_apostrophe": (_APOSTROPHE, lambda match, chance: ""),
    "small_letter": (_CAPITAL, lambda match, chance: match[0].lower()),
}


def spoil(text: str, chance: random.Random) -> str:
    """A text with mistakes, one to about twelve words and at least one where any kind fits."""
    for _ in range(max(len(text.split()) // _SHARE, 1)):
        kinds = chance.sample(sorted(MISTAKES), len(MISTAKES))
        for kind in kinds:
            pattern, change = MISTAKES[kind]
            found = list(pattern.finditer(text))
            if found:
                match = chance.choice(found)
                text = text[: match.start()] + change(match, chance) + text[match.end() :]
                break
    return text


def damage(record: Record, seed: int) -> tuple[Record, Candidate]:
    """The record with a faulty input, and its good text as the candidate; rejected if no mistake would fit."""
    text = spoil(record.input, random.Random(f"{seed} {record.input}"))
    reasons = {} if text != record.input else {"unchanged": "no mistake fits this text"}
    answer = Answer(record.input, 0, 0.0, True)
    verdict = "rejected" if reasons else "chosen"
    candidate = Candidate("damage", 0, 0, answer, record.input, reasons, verdict=verdict)
    return record.model_copy(update={"input": text}), candidate
