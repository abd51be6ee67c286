"""Whether a rewritten text has the style that it was asked for, learnt from what people wrote.

A logistic regression over words, pairs of words and length tells the targets of a use case from its inputs. It is
trained anew on the feature's training records, which no held-out record is among, and judges answers by the
probability that they are targets, as style accuracy is measured in style transfer (ParaDetox, Logacheva et al., 2022).
It knows style by words alone: in proofreading, where targets differ from inputs by single letters, it says little.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.records import Record

# With fewer pairs in a use case the figure would mean nothing, and is not taken.
FEWEST = 40
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class Style:
    """Judges the texts of use cases."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = models

    def of(self, use_case: str, text: str) -> float:
        """The probability that a text is a target of the use case and not an input, where half are."""
        return float(self._models[use_case].predict_proba([_features(text)])[0, 1])


def learn_style(use_cases: Iterable[str], records: Iterable[Record]) -> Style | None:
    """Learn from training records how targets differ from inputs; None if a use case has fewer than 40 with both."""
    pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in use_cases}
    for record in records:
        if record.use_case in pairs:
            pairs[record.use_case] += [(record.input, target) for target in record.targets[:1]]
    if min(map(len, pairs.values())) < FEWEST:
        return None
    return Style({name: _learn(texts) for name, texts in pairs.items()})


def _learn(pairs: list[tuple[str, str]]) -> Any:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [text for pair in pairs for text in pair]
    model = make_pipeline(DictVectorizer(), LogisticRegression(C=1.0, max_iter=1000))
    return model.fit([_features(text) for text in texts], [0, 1] * len(pairs))


def _features(text: str) -> dict[str, float]:
    """Words and pairs of words, weighed so that a long text has no more to say than a short one; and the length."""
    words = [word.casefold() for word in _WORD.findall(text)]
    found = {*words, *map(" ".join, itertools.pairwise(words))}
    share = 1 / math.sqrt(len(found) or 1)
    return dict.fromkeys(found, share) | {" length": math.log1p(len(words))}
