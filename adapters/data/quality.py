"""How much a text reads like something that a person wrote: a score from 0 to 1 by a model that is trained here.

Features: how familiar the text's letters and words are (log-counts of character trigrams, character pentagrams and word
pairs in good texts, by hash), and how it is built (lengths and shares). A logistic regression weighs them. The model is
a safetensors file, with a JSON file that says what it was trained on and how well it does on texts and kinds of damage
that it never saw. A new model gets a new version, and so a new name.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from adapters.data.ngrams import Codes, ngram_codes, word_codes
from infra.canonical import digest_file
from infra.errors import FactoryError

VERSION = "quality-1"
_SLOTS = 1 << 15
_KINDS = 3  # character trigrams, character pentagrams, word pairs
_FOLDER = Path(__file__).with_name("models")
_SCORED = 4000  # characters: enough to judge by, and no text takes longer than another
_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)")
_SPACE = re.compile(r"\s+")

Vector = NDArray[numpy.float32]


@dataclass(frozen=True)
class QualityModel:
    """Log-counts of n-grams in good texts [kinds, slots]; mean, scale and weight of each feature; the intercept."""

    familiar: NDArray[numpy.float16]
    mean: Vector
    scale: Vector
    weights: Vector
    intercept: float

    def score(self, text: str) -> float:
        """The probability that a text is good, from 0 to 1."""
        standard = (features(text, self.familiar) - self.mean) / self.scale
        logit = float(standard @ self.weights) + self.intercept
        return float(1 / (1 + numpy.exp(-numpy.clip(logit, -50, 50))))

    def save(self, folder: Path, version: str, facts: dict[str, Any]) -> None:
        """Write `<version>.safetensors` and `<version>.json` into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name) for name in ("familiar", "mean", "scale", "weights")}
        weights = folder / f"{version}.safetensors"
        save_file(tensors, weights)
        content = {"version": version, "intercept": self.intercept, "sha256": digest_file(weights), **facts}
        (folder / f"{version}.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@cache
def load_quality(folder: Path = _FOLDER, version: str = VERSION) -> QualityModel:
    """The model of a version.

    Raises:
        FactoryError: its weights are not those that its JSON file names.
    """
    from safetensors.numpy import load_file

    facts = json.loads((folder / f"{version}.json").read_text("utf-8"))
    weights = folder / f"{version}.safetensors"
    if digest_file(weights) != facts["sha256"]:
        raise FactoryError(f"{weights}: not the weights that {version}.json names; install the factory again")
    return QualityModel(**load_file(weights), intercept=facts["intercept"])


def familiar_counts(texts: list[str]) -> NDArray[numpy.float16]:
    """Logarithms of how often each slot's n-grams occur in texts [kinds, slots]."""
    counts = numpy.zeros((_KINDS, _SLOTS))
    for text in texts:
        for kind, slots in enumerate(_ngrams(text)):
            numpy.add.at(counts[kind], slots, 1)
    return numpy.log1p(counts).astype(numpy.float16)


def features(text: str, familiar: NDArray[numpy.float16]) -> Vector:
    """What a text is judged by: how familiar it is by each kind of n-gram, on average and in its strangest part, and
    its shape.
    """
    found: list[float] = []
    for kind, slots in enumerate(_ngrams(text)):
        known = familiar[kind][slots].astype(numpy.float32) if len(slots) else numpy.zeros(1, numpy.float32)
        found += [float(known.mean()), float((known == 0).mean())]
    return numpy.array([*found, *_shape(text[:_SCORED])], dtype=numpy.float32)


def _ngrams(text: str) -> list[NDArray[numpy.int64]]:
    """The slots of a text's character trigrams, pentagrams and word pairs."""
    plain = _SPACE.sub(" ", text[:_SCORED]).casefold()
    characters: Codes = numpy.fromiter(map(ord, plain), dtype=numpy.uint64, count=len(plain))
    grams = (ngram_codes(characters, 3), ngram_codes(characters, 5), ngram_codes(word_codes(plain.split()), 2))
    # The upper bits: the lower ones of a polynomial hash depend on the lower ones of the characters alone.
    return [(codes >> numpy.uint64(64 - _SLOTS.bit_length() + 1)).astype(numpy.int64) for codes in grams]


def _shape(text: str) -> list[float]:
    words = text.split()
    characters = max(len(text), 1)
    count = max(len(words), 1)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    pairs = Counter(pairwise(words))
    return [
        float(numpy.log1p(len(words))),
        sum(map(len, words)) / count,
        max(map(len, words), default=0) / 20,
        len(set(words)) / count,
        sum(times for times in pairs.values() if times > 1) / count,
        len(set(lines)) / len(lines),
        sum(map(str.isdigit, text)) / characters,
        sum(character in "{}[]<>|\\/=_#$%^*~`" for character in text) / characters,
        sum(word[:1].isupper() for word in words) / count,
        len(_SENTENCE.findall(text)) / count,
    ]
