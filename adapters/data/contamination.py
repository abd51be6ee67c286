"""Evaluation texts that stand in other texts too, by word n-grams, with the n-gram as the proof.

As published for Apple's foundation models (Gunter et al. 2024, arXiv:2407.21075, section 3.1): 4- to 13-grams, of which
those that are common usage prove nothing. Which n counts is decided by the evaluation text, as for GPT-3 (Brown et al.
2020, appendix C): 13 for all that are that long, the whole text for shorter ones, nothing below 4 words.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy

from adapters.data.ngrams import Codes, ngram_codes, word_codes, words


@dataclass(frozen=True)
class Match:
    """A text and an evaluation text that share an n-gram: their names, and the n-gram."""

    text: str
    evaluation: str
    ngram: str


@dataclass(frozen=True)
class _Length:
    """The n-grams of one length: their codes, ascending, and for each the number of a text that has it."""

    codes: Codes
    owners: numpy.ndarray[tuple[int], numpy.dtype[numpy.int64]]


class EvaluationNgrams:
    """The n-grams of evaluation texts. Memory: 16 bytes for each."""

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
            self._lengths[n] = _Length(together[order], numpy.asarray(owners[n])[order])

    def matches(self, texts: Iterable[tuple[str, str]], common: int) -> list[Match]:
        """The pairs that share an n-gram, each pair once. An n-gram that more than `common` of `texts` have is common
        usage and counts for none. Time and memory grow with the texts and with what is found.
        """
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        usage: Counter[int] = Counter()
        for name, text in texts:
            spoken = words(text)
            codes = word_codes(spoken)
            for n, length in self._lengths.items():
                grams = ngram_codes(codes, n)
                first = numpy.searchsorted(length.codes, grams, "left")
                last = numpy.searchsorted(length.codes, grams, "right")
                seen: set[int] = set()
                for start in numpy.flatnonzero(last > first).tolist():
                    code = int(grams[start])
                    if code in seen:
                        continue
                    seen.add(code)
                    usage[code] += 1
                    if usage[code] > common:
                        continue
                    ngram = " ".join(spoken[start : start + n])
                    for owner in length.owners[first[start] : last[start]].tolist():
                        found.setdefault((name, self._names[owner]), []).append((code, ngram))
        result = []
        for (name, evaluation), proofs in found.items():
            rare = [ngram for code, ngram in proofs if usage[code] <= common]
            if rare:
                result.append(Match(name, evaluation, max(rare, key=len)))
        return result
