"""How well a candidate is backed by its source, in figures: what groundedness and the scorer judge by.

No model takes part. On 120 chats of DialogSum the base's own likelihoods (`log p(y|x)` and the same less `log p(y)`, of
the least likely sentence) told corrupted summaries from human ones no better than these words do, and took a second
of a processor for each text: docs/benchmarks.md.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from adapters.synthesis.facts import Number, is_named, names, numbers, supported_numbers, vocabulary, words
from adapters.synthesis.rules import Source, copied_share

Vector = NDArray[numpy.float64]

_SENTENCE = re.compile(r"(?<=[.!?])[\"”’)]?\s+(?=[\"“#A-Z0-9])")
_NEGATION = re.compile(r"^(?:not|no|never|none|nobody|nothing|neither|nor|without|\w+n)$")
_NEGATED = re.compile(r"n['’]t\b|\bcannot\b", re.IGNORECASE)
_STEM = 5
_NEAR = 4
_FACTS = 12
NAMES = (
    "grounded_least",
    "grounded_mean",
    "ungrounded_weight",
    "names_held",
    "numbers_held",
    "copied",
    "covered",
    "words",
    "share_of_source",
    "negations",
    "negations_unheld",
    "negations_lost",
    "unknown_words",
)


@dataclass(frozen=True)
class Language:
    """How telling each word is: its inverse frequency, by stem, among a feature's documents and among its targets.

    A word is telling only where it is rare in both: targets tell what documents say ("asks", "agrees").
    """

    documents: int
    in_documents: dict[str, int]
    targets: int
    in_targets: dict[str, int]

    @staticmethod
    def of(documents: Sequence[str], targets: Sequence[str]) -> "Language":
        """The language of some texts."""
        return Language(len(documents), _stem_counts(documents), len(targets), _stem_counts(targets))

    def with_targets(self, targets: Sequence[str]) -> "Language":
        """The same documents with other targets."""
        return Language(self.documents, self.in_documents, len(targets), _stem_counts(targets))

    def weight(self, word: str) -> float:
        """ln((n + 1) / (texts with this word + 1)), the smaller of both kinds of text."""
        stem = _stem(word)
        among = (self.documents + 1) / (self.in_documents.get(stem, 0) + 1)
        return math.log(min(among, (self.targets + 1) / (self.in_targets.get(stem, 0) + 1)) if self.targets else among)

    def knows(self, word: str) -> bool:
        """Whether any of the texts has the word, in this or another form."""
        return _stem(word) in self.in_documents or _stem(word) in self.in_targets


@dataclass(frozen=True)
class Known:
    """What is worked out once for a document: what backs a candidate, and what a good one covers."""

    source: Source
    words: int
    telling: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[Number, ...]
    denied: frozenset[str]

    @staticmethod
    def of(document: str, source: Source, language: Language) -> "Known":
        """The facts of a document."""
        items = words(document)
        counts = Counter(word for word in items if len(word) > 3)
        telling = sorted(counts, key=lambda word: (-counts[word] * language.weight(word), word))[:_FACTS]
        return Known(
            source,
            len(items),
            tuple(telling),
            tuple(sorted({name.word for name in names(document) if not name.opening})),
            tuple(number for number in numbers(document) if number.certain),
            frozenset(_negated(document)),
        )


def sentences(text: str) -> list[str]:
    """A text's sentences; never none."""
    return [part for part in _SENTENCE.split(text.strip()) if part] or [""]


def groundedness(text: str, source: Source, language: Language) -> float:
    """Weight of its words that the source holds, in the sentence where that share is least; 0 to 1."""
    return min(_grounded(sentence, source, language)[0] for sentence in sentences(text))


def strangeness(text: str, source: Source, language: Language) -> float:
    """Share of a text's words that neither its source nor any other text of the feature has."""
    return _share([word not in source.vocabulary and not language.knows(word) for word in words(text)], empty=0.0)


def evidence(text: str, known: Known, language: Language) -> Vector:
    """The figures of `NAMES` for a candidate."""
    source = known.source
    found = [_grounded(sentence, source, language) for sentence in sentences(text)]
    own = words(text)
    stated = [number for number in numbers(text) if number.certain]
    named = [name for name in names(text) if not name.opening]
    told = _negated(text)
    affirmed = {_stem(word) for word in own if len(word) > 3}
    return numpy.array(
        [
            min(share for share, _ in found),
            sum(share for share, _ in found) / len(found),
            max(weight for _, weight in found),
            _share([source.holds_name(name.word) for name in named]),
            _share([bool(number.values & source.numbers) for number in stated]),
            copied_share(text, source),
            coverage(text, known),
            math.log1p(len(own)),
            math.log1p(len(own)) - math.log1p(known.words),
            told.total(),
            len(told.keys() - known.denied) / max(len(told), 1),
            len((affirmed & known.denied) - told.keys()) / max(len(affirmed), 1),
            strangeness(text, source, language),
        ]
    )


def coverage(text: str, known: Known) -> float:
    """Share of the document's key facts that a text holds: its names, numbers and most telling repeated words."""
    own, values = vocabulary(text), supported_numbers(text)
    stems = {_stem(word) for word in words(text)}
    held = [_stem(word) in stems for word in known.telling]
    held += [is_named(name, own) for name in known.names]
    held += [bool(number.values & values) for number in known.numbers]
    return _share(held)


def _grounded(sentence: str, source: Source, language: Language) -> tuple[float, float]:
    """The share of a sentence's weight that the source holds, and the weight that it does not."""
    weights = [(language.weight(word), _is_held(word, source)) for word in words(sentence)]
    whole = sum(weight for weight, _ in weights)
    strange = sum(weight for weight, held in weights if not held)
    return (1 - strange / whole if whole > 0 else 1.0), strange


def _is_held(word: str, source: Source) -> bool:
    return word in source.vocabulary or (len(word) > 3 and word[:_STEM] in source.stems)


def _negated(text: str) -> Counter[str]:
    """Stems of the words that follow a negation closely, with how often they do."""
    items = words(_NEGATED.sub(" not ", text))
    near: Counter[str] = Counter()
    for place, word in enumerate(items):
        if _NEGATION.match(word):
            near.update(_stem(other) for other in items[place + 1 : place + 1 + _NEAR] if len(other) > 3)
    return near


def _stem_counts(texts: Sequence[str]) -> dict[str, int]:
    return Counter(stem for text in texts for stem in {_stem(word) for word in words(text)})


def _stem(word: str) -> str:
    return word[:_STEM]


def _share(held: Sequence[bool], empty: float = 1.0) -> float:
    return sum(held) / len(held) if held else empty
