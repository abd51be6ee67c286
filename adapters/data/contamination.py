"""Evaluation texts that stand in other texts too, by word n-grams, with the n-gram as the proof.

As published for Apple's foundation models (Gunter et al. 2024, arXiv:2407.21075, section 3.1): 4- to 13-grams, of which
those that are common usage prove nothing. Which n counts is decided by the evaluation text, as for GPT-3 (Brown et al.
2020, appendix C): 13 for all that are that long, the whole text for shorter ones, nothing below 4 words.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from adapters.data.ngrams import Codes, ngram_codes, word_codes, words

Numbers = NDArray[numpy.int64]


@dataclass(frozen=True)
class Match:
    """A text and an evaluation text that share an n-gram: their names, and the n-gram."""

    text: str
    evaluation: str
    ngram: str


@dataclass(frozen=True)
class Matches:
    """A match for each text that shares an n-gram with an evaluation text, and for each of those, by their names."""

    by_text: dict[str, Match]
    by_evaluation: dict[str, Match]


@dataclass(frozen=True)
class _Length:
    """The n-grams of one length: their codes, ascending; for each the number of a text that has it, and how many of the
    other texts do.
    """

    codes: Codes
    owners: Numbers
    usage: Numbers


class EvaluationNgrams:
    """The n-grams of evaluation texts. Memory: 24 bytes for each."""

    def __init__(self, texts: Iterable[tuple[str, str]], least: int, most: int) -> None:
        """`texts` are pairs of name and text; `least` and `most` bound the words of an n-gram."""
        self._names: list[str] = []
        codes: dict[int, list[Codes]] = {}
        owners: dict[int, list[int]] = {}
        for name, text in texts:
            found = words(text)
            if len(found) < least:
                continue
            n = min(len(found), most)
            grams = numpy.unique(ngram_codes(word_codes(found), n))
            codes.setdefault(n, []).append(grams)
            owners.setdefault(n, []).extend([len(self._names)] * len(grams))
            self._names.append(name)
        self._lengths: dict[int, _Length] = {}
        for n in sorted(codes, reverse=True):
            together = numpy.concatenate(codes[n])
            order = numpy.argsort(together, kind="stable")
            self._lengths[n] = _Length(together[order], numpy.asarray(owners[n])[order], numpy.zeros_like(order))

    def matches(
        self,
        texts: Callable[[], Iterable[tuple[str, str]]],
        common: int,
        usage: Callable[[], Iterable[tuple[str, str]]] | None = None,
    ) -> Matches:
        """What shares an n-gram that at most `common` of the texts have, or of those in `usage`. `texts` gives pairs of
        name and text, and is read twice: to count, then to match. Time and memory grow with the texts, not with the
        pairs that match.
        """
        for length in self._lengths.values():
            length.usage[:] = 0
        for _, text in (usage or texts)():
            codes = word_codes(words(text))
            for n, length in self._lengths.items():
                first, last = _found(length, numpy.unique(ngram_codes(codes, n)))
                numpy.add.at(length.usage, first[last > first], 1)
        result = Matches({}, {})
        proved = numpy.zeros(len(self._names), dtype=bool)
        for name, text in texts():
            spoken = words(text)
            codes = word_codes(spoken)
            for n, length in self._lengths.items():
                first, last = _found(length, ngram_codes(codes, n))
                for start in numpy.flatnonzero(last > first).tolist():
                    if length.usage[first[start]] > common:
                        continue
                    owners = length.owners[first[start] : last[start]]
                    fresh = owners[~proved[owners]].tolist()
                    if not fresh and name in result.by_text:
                        continue
                    ngram = " ".join(spoken[start : start + n])
                    result.by_text.setdefault(name, Match(name, self._names[int(owners[0])], ngram))
                    for owner in fresh:
                        proved[owner] = True
                        result.by_evaluation.setdefault(self._names[owner], Match(name, self._names[owner], ngram))
        return result


def _found(length: _Length, grams: Codes) -> tuple[Numbers, Numbers]:
    """Where the n-grams stand among those of the evaluation texts: from, and up to."""
    return numpy.searchsorted(length.codes, grams, "left"), numpy.searchsorted(length.codes, grams, "right")
