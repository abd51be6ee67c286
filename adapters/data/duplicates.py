"""Texts that are nearly the same: MinHash signatures find candidates, the exact Jaccard similarity decides.

A text is its set of word trigrams. 128 permutations in 32 bands of 4 rows find two texts of similarity 0.6 in 98 of 100
cases, of 0.8 practically always (Leskovec et al., Mining of Massive Datasets, section 3.4). Time and memory grow
with the number of texts: only those that stay are indexed, so a bucket does not fill up with repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
from rensa import RMinHash, RMinHashLSH

from adapters.data.ngrams import Codes, ngram_codes, word_codes, words

_PERMUTATIONS, _BANDS = 128, 32
_SHINGLE = 3
_SEED = 1
# A text with more candidates is a form letter; looking at all of them would take quadratic time.
_MOST_CANDIDATES = 200


@dataclass(frozen=True)
class Near:
    """The text, by its position among those that stayed, that another one nearly repeats."""

    position: int
    similarity: float


class NearDuplicates:
    """Texts that stayed so far, none of them nearly the same as another."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = RMinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, num_bands=_BANDS)
        self._shingles: list[Codes] = []

    def add(self, text: str, counts: Callable[[int], bool]) -> Near | None:
        """Add a text, unless it nearly repeats one that stayed and that `counts`: that one, by similarity, then age."""
        shingles = _shingles(text)
        signature = RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
        signature.update(list(map(str, shingles.tolist())))
        candidates = sorted(self._index.query(signature))[:_MOST_CANDIDATES]
        similar = [
            (similarity, -position)
            for position in candidates
            if counts(position) and (similarity := _similarity(shingles, self._shingles[position])) >= self._threshold
        ]
        if similar:
            similarity, position = max(similar)
            return Near(-position, similarity)
        self._index.insert(len(self._shingles), signature)
        self._shingles.append(shingles)
        return None


def _shingles(text: str) -> Codes:
    """The text's trigrams, ascending; the whole text where it is shorter."""
    codes = word_codes(words(text))
    return numpy.unique(ngram_codes(codes, min(_SHINGLE, max(len(codes), 1))))


def _similarity(one: Codes, other: Codes) -> float:
    shared = len(numpy.intersect1d(one, other, assume_unique=True))
    together = len(one) + len(other) - shared
    return shared / together if together else 1.0
