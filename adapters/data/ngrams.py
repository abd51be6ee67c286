"""Texts as sets of word n-grams, in numbers that are the same in every process."""

import hashlib
import re
from functools import lru_cache

import numpy
from numpy.typing import NDArray

Codes = NDArray[numpy.uint64]
_WORD = re.compile(r"\w+")
_BASE = numpy.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of an earlier word is lost


def words(text: str) -> list[str]:
    """The words of a text, case and punctuation aside."""
    return _WORD.findall(text.casefold())


def word_codes(found: list[str]) -> Codes:
    """A 64-bit number for each word."""
    return numpy.fromiter(map(_code, found), dtype=numpy.uint64, count=len(found))


def ngram_codes(codes: Codes, n: int) -> Codes:
    """A 64-bit number for each run of `n` words, by the run's start: a polynomial in the words' numbers, mod 2⁶⁴."""
    count = len(codes) - n + 1
    if count <= 0:
        return codes[:0]
    total = codes[:count].copy()
    for offset in range(1, n):
        total *= _BASE
        total += codes[offset : offset + count]
    return total


@lru_cache(maxsize=1 << 17)
def _code(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
