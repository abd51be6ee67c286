"""Profane words in a text, in English, by glin-profanity's list and its reading of disguised spellings."""

from functools import cache
from typing import Any

_WORDS = 32  # a piece of a text: the library's time grows faster than a text's length


def profane_words(text: str) -> list[str]:
    """The profane words of a text, as they stand in it, each once."""
    words = text.split()
    pieces = (" ".join(words[start : start + _WORDS]) for start in range(0, len(words), _WORDS))
    found = (word for piece in pieces for word in _filter().check_profanity(piece)["profane_words"])
    return list(dict.fromkeys(found))


@cache
def _filter() -> Any:
    from glin_profanity import Filter

    return Filter({"languages": ["english"], "word_boundaries": True})
