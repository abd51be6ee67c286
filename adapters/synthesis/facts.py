"""What a text holds that another can be checked against: words, runs of words, numbers and names.

Plain pattern matching without a model, so that a rejection can be explained to the person who reads it. English, as
far as written numbers, weekdays and months go.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:[.:]\d+)?|[^\W\d_]+")
_TIME = re.compile(r"([01]?\d|2[0-4])[:.]([0-5]\d)")
_ENDING = re.compile(r"'(?:s|re|ll|ve|d|m|t)?$")
# Ends where any word is capitalised: the beginning, after a sentence, a label's colon or a bullet, in a quotation.
_OPENING = re.compile(r"(?:^|[.!?:;…\n][\"'”’)\]]*\s+|(?:^|\n)\s*[-*•]\s*|[\"“‘(\[])$")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_UNITS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = _listed("twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _listed("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth")
_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 1_000_000, "m": 1_000_000}
_WRITTEN = (
    {word: value for value, word in enumerate(_UNITS)}
    | {word: 10 * value for value, word in enumerate(_TENS, start=2)}
    | {word: value for value, word in enumerate(_ORDINALS, start=1)}
    | {"noon": 12, "midday": 12, "midnight": 12, "dozen": 12, "twice": 2, "both": 2, "couple": 2, "pair": 2}
)
# Numbers only sometimes ("one of them", "first of all"): they support a number in another text, but claim none.
_VAGUE = {"one", "twice", "both", "couple", "pair", *_ORDINALS}

_CALENDAR = _listed(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december"
)
_TITLES = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof", "sir", "madam"})


class Number(NamedTuple):
    """A number as it is written, the values that it may mean, and whether it is one for certain."""

    written: str
    values: frozenset[str]
    certain: bool


class Name(NamedTuple):
    """A capitalised word, and whether it stands where any word would be capitalised."""

    word: str
    opening: bool


def words(text: str) -> list[str]:
    """The words and numbers of a text, case folded, without possessive and contracted endings."""
    return [_bare(word) for word in _WORD.findall(text)]


def runs(items: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Every run of `length` neighbouring items, in order."""
    return [tuple(items[start : start + length]) for start in range(len(items) - length + 1)]


def numbers(text: str) -> Iterator[Number]:
    """The numbers of a text, in digits or in words: 1,000 is 1000; 9:00 is 9; 15:30 is also 3:30; forty-two is 42."""
    tokens = _NUMBER.findall(text)
    position = 0
    while position < len(tokens):
        token = tokens[position].casefold()
        position += 1
        if token[0].isdecimal():
            values = _values(token)
        elif token in _WRITTEN:
            value = _WRITTEN[token]
            if token in _TENS and position < len(tokens) and tokens[position].casefold() in _UNITS[1:10]:
                token += f"-{tokens[position]}"
                value += _WRITTEN[tokens[position].casefold()]
                position += 1
            values = {str(value)}
        else:
            continue
        if position < len(tokens) and (scale := _SCALES.get(tokens[position].casefold())):
            values |= {_plain(float(value) * scale) for value in values if ":" not in value}
        yield Number(token, frozenset(values), token not in _VAGUE)


def _values(token: str) -> set[str]:
    """What a number in digits may mean. `10.30` may be a time or ten point three."""
    values: set[str] = set()
    if time := _TIME.fullmatch(token):
        hour, minutes = int(time[1]), int(time[2])
        for hours in {hour, hour - 12} if hour > 12 else {hour}:
            values.add(f"{hours}:{minutes:02}" if minutes else str(hours))
    if ":" not in token:
        values.add(_plain(float(token.replace(",", ""))))
    return values or {token}


def _plain(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def supported_numbers(text: str) -> frozenset[str]:
    """Every value that a text supports: those of its numbers, and of the groups of digits in them (4 in 4.2)."""
    values = {value for number in numbers(text) for value in number.values}
    return frozenset(values | {str(int(digits)) for digits in re.findall(r"\d+", text)})


def names(text: str) -> list[Name]:
    """The capitalised words of a text but for titles and the first person; acronyms are names too."""
    return [
        Name(match[0], bool(_OPENING.search(text, 0, match.start())))
        for match in _WORD.finditer(text)
        if match[0][0].isupper() and _bare(match[0]) not in _TITLES and _bare(match[0]) != "i"
    ]


def vocabulary(text: str) -> frozenset[str]:
    """The words of a text in the form that `is_named` looks them up in."""
    return frozenset(map(_whole_day, [*words(text), *(_bare(word) for word in re.findall(r"[^\W\d_]+", text))]))


def is_named(name: str, vocabulary: frozenset[str]) -> bool:
    """Whether a vocabulary holds a name: in any case, in the plural, as a day or month cut short."""
    bare = _whole_day(_bare(name))
    return bare in vocabulary or bare.removesuffix("s") in vocabulary


def _whole_day(word: str) -> str:
    """`fri` as `friday`, `sept` as `september`, any other word as it is."""
    return next((day for day in _CALENDAR if len(word) >= 3 and day.startswith(word)), word)


def _bare(word: str) -> str:
    return _ENDING.sub("", word.casefold().replace("’", "'"))
