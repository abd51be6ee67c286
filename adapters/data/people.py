"""People whom a record's own form names: who sends a mail, who speaks in a chat, who is greeted, who signs.

Nothing is guessed from the words of a text, so somebody who is only talked about stays: finding those takes a language
model, and none comes with a library alone. English, as far as greetings and closings go.
"""

import re
from collections.abc import Iterator, Sequence

_WORD = r"[^\W\d_a-z][\w'’-]*\.?"
_NAME = rf"{_WORD}(?: {_WORD}){{0,3}}"
_HEADER = re.compile(r"^(?:From|To|Cc|Reply-To):[ \t]*([^@<\n]+)", re.MULTILINE)
_GREETING = re.compile(rf"^[ \t]*(?:(?i:dear|hi|hello|hey)) ({_NAME})(?=[ \t]*(?:[,!.:–-]|$))", re.MULTILINE)
_CLOSING = re.compile(
    r"^[ \t]*(?i:(?:(?:best|kind|warm|many) )?(?:regards|wishes|thanks)|best|cheers|thank you|sincerely|yours \w+)"
    rf"[,.!]*\s*\n\s*({_NAME})[ \t]*$",
    re.MULTILINE,
)
_SPEAKER = re.compile(rf"^(?!(?:Subject|Date|Re|Fwd?|From|To|Cc|Reply-To):)({_NAME}):[ \t]+\S", re.MULTILINE)
# In front of names, or instead of them.
_NOBODY = frozenset(
    "mr mrs ms miss dr prof sir madam all everyone everybody team folks there guys me you i we support noreply".split()
)
_SHORTEST = 3


def people(texts: Sequence[str]) -> dict[str, str]:
    """Every form of a name that the texts of one record give, and whose it is: Anna Roe, and Anna and Roe alone."""
    found = {" ".join(_parts(name)) for text in texts for name in _names(text)} - {""}
    forms: dict[str, str] = {}
    for name in sorted(found, key=lambda name: (-len(name.split()), name)):
        whose = forms.setdefault(name, name)
        for part in name.split():
            if len(part) >= _SHORTEST:
                forms.setdefault(part, whose)
        first, _, last = name.rpartition(" ")
        if first:
            forms.setdefault(f"{last}, {first}", whose)
    return forms


def _names(text: str) -> Iterator[str]:
    for pattern in (_HEADER, _GREETING, _CLOSING):
        yield from (match[1] for match in pattern.finditer(text))
    speakers = [match[1] for match in _SPEAKER.finditer(text)]
    # A label here and there is no chat.
    if len(speakers) > 1 and 2 * len(speakers) >= sum(bool(line.strip()) for line in text.splitlines()):
        yield from speakers


def _parts(name: str) -> list[str]:
    """The words of a name in the order in which they are spoken, without titles: Roe, Anna is Anna Roe."""
    last, comma, first = name.partition(",")
    words = f"{first} {last}".split() if comma else name.split()
    bare = [word.strip("\"'.()") for word in words]
    return [word for word in bare if word[:1].isupper() and word.casefold() not in _NOBODY]
