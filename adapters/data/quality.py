"""How much a text reads like something that a person wrote: a score from 0 to 1 by a linear model trained here.

Features: hashed character n-grams (what the text looks like) and a few lengths and shares (how it is built). The model
is its coefficients: a safetensors file, with a JSON file that says what it was trained on and how well it does on texts
and kinds of damage that it never saw. A new model gets a new version, and so a new name.
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

VERSION = "quality-1"
NGRAM_FEATURES = 1 << 14
_FOLDER = Path(__file__).with_name("models")
_SCORED = 5000  # characters: enough to judge by, and no text takes longer than another
_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)")

Vector = NDArray[numpy.float32]


@dataclass(frozen=True)
class QualityModel:
    """Coefficients over n-grams [NGRAM_FEATURES] and over standardised shapes [SHAPES], and the intercept."""

    ngrams: Vector
    shapes: Vector
    mean: Vector
    scale: Vector
    intercept: float

    def score(self, text: str) -> float:
        """The probability that a text is good, from 0 to 1."""
        grams = ngram_features([text[:_SCORED]])
        standard = (shape_features(text[:_SCORED]) - self.mean) / self.scale
        logit = float((grams @ self.ngrams)[0]) + float(standard @ self.shapes) + self.intercept
        return float(1 / (1 + numpy.exp(-numpy.clip(logit, -50, 50))))

    def save(self, folder: Path, version: str, facts: dict[str, Any]) -> None:
        """Write `<version>.safetensors` and `<version>.json` into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self, name) for name in ("ngrams", "shapes", "mean", "scale")}
        save_file(tensors, folder / f"{version}.safetensors")
        content = {"version": version, "intercept": self.intercept, **facts}
        (folder / f"{version}.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@cache
def load_quality(folder: Path = _FOLDER, version: str = VERSION) -> QualityModel:
    """The model of a version."""
    from safetensors.numpy import load_file

    facts = json.loads((folder / f"{version}.json").read_text("utf-8"))
    return QualityModel(**load_file(folder / f"{version}.safetensors"), intercept=facts["intercept"])


def ngram_features(texts: list[str]) -> Any:
    """Sparse matrix [texts, NGRAM_FEATURES] of hashed character 2- to 4-grams within words, rows of length 1."""
    return _vectorizer().transform(texts)


def shape_features(text: str) -> Vector:
    """Lengths and shares of a text [SHAPES]."""
    words = text.split()
    characters = max(len(text), 1)
    count = max(len(words), 1)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    pairs = Counter(pairwise(words))
    return numpy.array(
        [
            numpy.log1p(len(words)),
            sum(map(len, words)) / count,
            max(map(len, words), default=0) / 20,
            len(set(words)) / count,
            sum(count for count in pairs.values() if count > 1) / count,
            len(set(lines)) / len(lines),
            sum(map(str.isalpha, text)) / characters,
            sum(map(str.isdigit, text)) / characters,
            sum(map(str.isspace, text)) / characters,
            sum(map(str.isupper, text)) / characters,
            sum(character in "{}[]<>|\\/=_#$%^*~`" for character in text) / characters,
            sum(ord(character) > 127 for character in text) / characters,
            sum(word[:1].isupper() for word in words) / count,
            len(_SENTENCE.findall(text)) / count,
            float(text.rstrip()[-1:] in ".!?…\"')”’"),
        ],
        dtype=numpy.float32,
    )


@cache
def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=NGRAM_FEATURES, lowercase=False, dtype=numpy.float32
    )
