"""What a text holds that another can be checked against: words, runs of words, numbers and names.

Plain pattern matching without a model, so that a rejection can be explained to the person who reads it. English, as
far as written numbers, weekdays and months go.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
# Digits behind a letter (Person1, B12) belong to a name. Signs that stand for a unit count as words.
_DIGITS = r"(?<![^\W_])\d+"
_NUMBER = re.compile(
    rf"(?<![^\W_])\d{{1,3}}(?:,\d{{3}}|, 000)+(?!\d)(?:\.\d+)?|{_DIGITS}(?:\.\d+){{2,}}|{_DIGITS}(?:[.:]\d+)?"
    r"|[^\W\d_]+|[$€£¥%]|[.!?;\n]"
)
_HALF_DAY = re.compile(r"\b([ap])\.m\b\.?", re.IGNORECASE)
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

# What is numbered rather than counted: its number stands behind it.
_NUMBERED = frozenset(
    _listed(
        "no number room section chapter page version level issue platform gate line floor deck step part figure table "
        "unit item flight route class grade size $ € £ ¥"
    )
)
_NO_UNITS = frozenset(
    _listed(
        "a an and as at but by for from if in into is it of off on or so than that the then they this to was were with "
        "who which will would are be can has have had he she we i you not st nd rd th"
    )
)
# Between the numbers of one list: sections 4, 7 and 9.
_JOINING = frozenset(_listed("and or to through"))
_QUANTITIES = frozenset({*_WRITTEN, *_SCALES})
_REACH = 3

_CALENDAR = _listed(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december"
)
_DESIGNATION = re.compile(r"\b([A-Z]{2,})[ -](\d+)\b")
_HANDLE = re.compile(r"[\w.+-]+(?=@\w)")
# Shorter names that differ in one letter are two people as often as not: Ann and Anna, Maria and Marta.
_LONG = 6
_SHORT = 4
_TITLES = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof", "sir", "madam"})


class Number(NamedTuple):
    """A number as it is written, the values that it may mean, and whether it is one for certain.

    `unit` is the word beside it that says what it counts or numbers, if there is one; `units` are the words near it
    that may say so ("two or three weeks").
    """

    written: str
    values: frozenset[str]
    certain: bool
    unit: str = ""
    units: frozenset[str] = frozenset()


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
    tokens = _NUMBER.findall(_HALF_DAY.sub(r"\1m", text))
    position = 0
    last, numbered = -1, ""
    while position < len(tokens):
        start, token = position, tokens[position].casefold()
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
        beside, near = _counts(tokens, position)
        listed = last >= 0 and not beside and all(one.casefold() in _JOINING for one in tokens[last:start])
        numbered = numbered if listed else _numbered(tokens, start)
        last = position
        units = frozenset({numbered, beside, *near} - {""})
        yield Number(token, frozenset(values), token not in _VAGUE, numbered or beside, units)


def _numbered(tokens: Sequence[str], start: int) -> str:
    """What is numbered by the number at tokens[start]: section, $, or a name (Amaya 2.1)."""
    before = tokens[start - 1] if start else ""
    unit = before.casefold().removesuffix("s")
    named = before[:1].isupper() and before.casefold() not in _NO_UNITS | _QUANTITIES
    return unit if unit in _NUMBERED or named else ""


def _counts(tokens: Sequence[str], end: int) -> tuple[str, list[str]]:
    """What the number before tokens[end] counts: by the word beside it, and by all words near it."""
    near: list[str] = []
    for token in tokens[end : end + _REACH]:
        word = token.casefold()
        if word in ".!?;\n":
            break
        counts = word == "%" or (word[0].isalpha() and word not in _NO_UNITS and word not in _QUANTITIES)
        near.append((word.removesuffix("s") or word) if counts else "")
    return (near[0] if near else ""), near


def counted(text: str) -> dict[str, frozenset[str]]:
    """For each unit of a text, the values that stand with it: weeks → 2, 3. Section 4.3 is one of section 4 too."""
    found: dict[str, set[str]] = {}
    for number in numbers(text):
        for unit in number.units:
            found.setdefault(unit, set()).update(number.values | (_wholes(number) if unit in _NUMBERED else set()))
    return {unit: frozenset(values) for unit, values in found.items()}


def _values(token: str) -> set[str]:
    """What a number in digits may mean. `10.30` may be a time or ten point three, `3.1.1` is a number of a section."""
    if token.count(".") > 1:
        return {token}
    values: set[str] = set()
    if time := _TIME.fullmatch(token):
        hour, minutes = int(time[1]), int(time[2])
        for hours in {hour, hour - 12} if hour > 12 else {hour}:
            values.add(f"{hours}:{minutes:02}" if minutes else str(hours))
    if ":" not in token:
        values.add(_plain(float(token.replace(",", "").replace(" ", ""))))
    return values or {token}


def _plain(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _wholes(number: Number) -> set[str]:
    """The numbers that one with points is a part of: of 3.1.1 these are 3.1 and 3."""
    parts = number.written.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def supported_numbers(text: str) -> frozenset[str]:
    """Every value that a text supports: those of its numbers, of what they are parts of, and of groups of digits in
    them (4 in 4.2).
    """
    values = {value for number in numbers(text) for value in number.values | _wholes(number)}
    return frozenset(values | {str(int(digits)) for digits in re.findall(_DIGITS, text)})


def names(text: str) -> list[Name]:
    """The capitalised words of a text but for titles, single letters and the first person; acronyms are names too."""
    return [
        Name(match[0], bool(_OPENING.search(text, 0, match.start())))
        for match in _WORD.finditer(text)
        if match[0][0].isupper() and len(bare := _bare(match[0])) > 1 and bare not in _TITLES
    ]


def vocabulary(text: str) -> frozenset[str]:
    """The words of a text in the form that `is_named` looks them up in; RFC 1123 is RFC1123 too."""
    parts = [_bare(word) for word in re.findall(r"[^\W\d_]+", text)]
    joined = [f"{_bare(word)}{digits}" for word, digits in _DESIGNATION.findall(text)]
    return frozenset(map(_whole_day, [*words(text), *parts, *joined]))


def is_named(name: str, vocabulary: frozenset[str]) -> bool:
    """Whether a vocabulary holds a name: in any case, in singular or plural, as a day or month cut short."""
    bare = _whole_day(_bare(name))
    return not vocabulary.isdisjoint((bare, bare.removesuffix("s"), f"{bare}s"))


def name_spellings(text: str) -> frozenset[str]:
    """The names of a text that are long enough to be known when they are misspelt, case folded."""
    return frozenset(bare for name in names(text) if len(bare := _bare(name.word)) >= _LONG - 1 and bare.isalpha())


def handles(text: str) -> frozenset[str]:
    """The parts of the mail addresses in a text before their `@`: `jane.roe` as jane and roe."""
    return frozenset(
        part.casefold() for found in _HANDLE.findall(text) for part in re.split(r"[\W\d_]+", found) if part
    )


def is_handle(name: str, handles: Iterable[str]) -> bool:
    """Whether a name stands at an end of one of `handles`: Jane of janer."""
    bare = _bare(name)
    return len(bare) >= _SHORT and any(one.startswith(bare) or one.endswith(bare) for one in handles)


def is_misspelt(name: str, spellings: Iterable[str]) -> bool:
    """Whether a long name is one of `spellings` but for a letter changed, added or left out, or two exchanged."""
    bare = _bare(name)
    return any(max(len(bare), len(other)) >= _LONG and _is_a_slip(bare, other) for other in spellings)


def _is_a_slip(one: str, other: str) -> bool:
    """Whether two words with the same first letter are one slip apart (Damerau 1964)."""
    start = next((place for place, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), None)
    if start is None:
        return abs(len(one) - len(other)) <= 1
    mine, theirs = one[start:], other[start:]
    exchanged = mine[:2] == theirs[1::-1] and mine[2:] == theirs[2:]
    return start > 0 and (mine[1:] == theirs[1:] or mine[1:] == theirs or mine == theirs[1:] or exchanged)


@functools.lru_cache(maxsize=1 << 16)
def _whole_day(word: str) -> str:
    """`fri` as `friday`, `sept` as `september`, any other word as it is."""
    return next((day for day in _CALENDAR if len(word) >= 3 and day.startswith(word)), word)


@functools.lru_cache(maxsize=1 << 16)
def _bare(word: str) -> str:
    return _ENDING.sub("", word.casefold().replace("’", "'"))
