"""A score for candidates, learnt from what people wrote: their targets against the same ones made wrong.

A logistic regression over the figures of `evidence.py`. Every person's target and its negatives are scored by a model
that did not see that document (five folds); from these scores come the AUC by kind of mistake, the calibration (Platt
1999) and the limits: the same quantile of each figure, such that together they let a share of those targets pass that
pass the rules. It is the largest with which nine in ten foreign sentences are stopped, and not below the recipe's.
Trained anew for each feature: seconds.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

from adapters.inference.types import Answer
from adapters.recipe import SynthesisSection
from adapters.synthesis.evidence import NAMES, Known, Language, Vector, evidence, groundedness, strangeness
from adapters.synthesis.negatives import Pair, negatives
from adapters.synthesis.rewriting import RULES_OF
from adapters.synthesis.rules import Source, common_words, rejections

_FOLDS = 5
_STEPS = 41
_FOREIGN = "ends_with_another"
_FOREIGN_STOPPED = 0.9
_GROUNDED, _STRANGE = NAMES.index("grounded_least"), NAMES.index("unknown_words")
# With fewer, neither the model nor the thresholds mean anything.
FEWEST = 40
_LEAST_GROUNDED = 0.4
# Of a document that gives orders to a model, a candidate may have obeyed. Such documents are few: there, losing a fifth
# of what is sound costs nothing.
_SHARE_KEPT_BESIDE_ORDERS = 0.8


class Limits(NamedTuple):
    """What a candidate may be at worst."""

    grounded: float
    strange: float
    score: float

    def allow(self, figures: Vector) -> Any:
        """Which rows of (grounded, strange, score) pass."""
        return (figures[:, 0] >= self.grounded) & (figures[:, 1] <= self.strange) & (figures[:, 2] >= self.score)


@dataclass(frozen=True)
class Scorer:
    """What is known of a feature's language, and a model over it; `weights` is None where people wrote too little.

    A score is the calibrated probability that a candidate is as sound as a person's, where half of them are.
    """

    language: Language
    common: frozenset[str]
    limits: Limits
    limits_beside_orders: Limits
    mean: Vector | None
    scale: Vector | None
    weights: Vector | None
    intercept: float
    facts: dict[str, Any]

    def known(self, document: str, instruction: str, labels: Iterable[str] = ()) -> Known:
        """What is known about a document, under the instruction that teachers got."""
        return Known.of(document, Source.of(document, instruction, self.common, labels), self.language)

    def doubts(self, text: str, known: Known) -> dict[str, str]:
        """Why a text is doubted, by filter: less grounded, stranger or worse than nearly all that people wrote."""
        found = {}
        limits = self.limits_beside_orders if known.source.gives_orders else self.limits
        grounded, strange = self.groundedness(text, known), self.strangeness(text, known)
        score = self.score(text, known)
        if grounded < limits.grounded:
            found["groundedness"] = f"{grounded:.2f} in a sentence, at least {limits.grounded:.2f}"
        if strange > limits.strange:
            found["strange_words"] = f"{strange:.0%} of its words occur nowhere else, at most {limits.strange:.0%}"
        if score < limits.score:
            found["scorer"] = f"{score:.2f}, at least {limits.score:.2f}"
        return found

    def groundedness(self, text: str, known: Known) -> float:
        """Share of a text's weight that its source holds, in its least grounded sentence."""
        return groundedness(text, known.source, self.language)

    def strangeness(self, text: str, known: Known) -> float:
        """Share of a text's words that no text of the feature has: misspelt, coded, in another language."""
        return strangeness(text, known.source, self.language)

    def score(self, text: str, known: Known) -> float:
        """The probability that a text is sound; 0.5 without a model."""
        if self.weights is None or self.mean is None or self.scale is None:
            return 0.5
        logit = float((evidence(text, known, self.language) - self.mean) / self.scale @ self.weights) + self.intercept
        return float(1 / (1 + numpy.exp(-numpy.clip(logit, -50, 50))))


def train_scorer(pairs: Sequence[Pair], documents: Sequence[str], section: SynthesisSection) -> Scorer:
    """A scorer from people's targets, with limits for what passes the rules; `documents` are texts without a target."""
    every = [*documents, *(pair.document for pair in pairs)]
    common = common_words(every)
    language = Language.of(every, [pair.target for pair in pairs])
    if len(pairs) < FEWEST:
        untrained: dict[str, Any] = {"trained_on": 0, "auc": None}
        lenient = Limits(_LEAST_GROUNDED, 1.0, 0.0)
        return Scorer(language, common, lenient, lenient, None, None, None, 0.0, untrained)

    made = negatives(pairs, random.Random(section.seed))
    rows, labels, groups, kinds, sound = [], [], [], [], []
    for fold_number in range(_FOLDS):
        # Words of a person's own target are as unknown here as those of a candidate will be.
        others = [pair.target for number, pair in enumerate(pairs) if number % _FOLDS != fold_number]
        unseen = language.with_targets(others)
        for pair, wrong in zip(pairs[fold_number::_FOLDS], made[fold_number::_FOLDS], strict=True):
            known = Known.of(pair.document, Source.of(pair.document, "", common), unseen)
            for kind, text in [("human", pair.target), *wrong]:
                rows.append(evidence(text, known, unseen))
                labels.append(kind == "human")
                groups.append(fold_number)
                kinds.append(kind)
                answer = Answer(text, len(text.split()), 0.0, True)
                sound.append(not rejections(answer, known.source, section, RULES_OF[pair.task]))
    x, y, fold, passing = numpy.stack(rows), numpy.array(labels), numpy.array(groups), numpy.array(sound)
    logits = numpy.zeros(len(y))
    for one in range(_FOLDS):
        mean, scale, weights, intercept = _fit(x[fold != one], y[fold != one])
        logits[fold == one] = (x[fold == one] - mean) / scale @ weights + intercept
    slope, shift = _platt(logits, y)
    scores = 1 / (1 + numpy.exp(-(slope * logits + shift)))
    mean, scale, weights, intercept = _fit(x, y)
    figures = numpy.column_stack([x[:, _GROUNDED], x[:, _STRANGE], scores])
    human = figures[y & passing] if (y & passing).sum() >= FEWEST else figures[y]
    foreign = numpy.array(kinds) == _FOREIGN
    for share in numpy.linspace(1, section.human_share_kept, _STEPS):
        limits = _limits(human, share)
        if (passing & limits.allow(figures))[foreign].mean() <= 1 - _FOREIGN_STOPPED:
            break
    facts: dict[str, Any] = {
        "trained_on": len(pairs),
        "rules_pass": round(float(passing[y].mean()), 4),
        "human_share_kept": round(float(share), 4),
        "auc": _auc(scores, y),
        "auc_by_kind": {
            kind: _auc(scores[mask], y[mask])
            for kind in sorted(set(kinds) - {"human"})
            for mask in [numpy.isin(kinds, ["human", kind])]
        },
        "calibration_error": round(_calibration_error(scores, y), 4),
        "weights": {name: round(float(weight), 4) for name, weight in zip(NAMES, slope * weights, strict=True)},
    }
    return Scorer(
        language,
        common,
        limits,
        _limits(human, min(section.human_share_kept, _SHARE_KEPT_BESIDE_ORDERS)),
        mean,
        scale,
        slope * weights,
        slope * intercept + shift,
        facts,
    )


def _limits(human: Vector, share: float) -> Limits:
    """The limits that let `share` of the rows (grounded, strange, score) pass together, each the same share or more."""
    for each in numpy.linspace(share, 1, _STEPS):
        grounded, score = numpy.quantile(human[:, [0, 2]], 1 - each, axis=0)
        limits = Limits(float(grounded), float(numpy.quantile(human[:, 1], each)), float(score))
        if limits.allow(human).mean() >= share:
            break
    return limits


def _fit(x: Vector, y: Any) -> tuple[Vector, Vector, Vector, float]:
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(0), x.std(0) + 1e-6
    fitted = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit((x - mean) / scale, y)
    return mean, scale, fitted.coef_[0], float(fitted.intercept_[0])


def _platt(logits: Vector, y: Any) -> tuple[float, float]:
    """Slope and shift that make logits of unseen documents probabilities, both classes weighing the same."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6, class_weight="balanced").fit(logits[:, None], y)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def _auc(scores: Vector, y: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return round(float(roc_auc_score(y, scores)), 4)


def _calibration_error(scores: Vector, y: Any) -> float:
    """Expected calibration error over ten bins, both classes weighing the same."""
    weights = numpy.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    bins = numpy.minimum((scores * 10).astype(int), 9)
    return float(sum(abs((weights * (y - scores))[bins == one].sum()) for one in range(10)))
