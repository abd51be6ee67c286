"""How well one system answered: the feature's score and the figures beside it, by item, by use case and as a whole.

A feature's figure is the mean over its use cases, however many items each has; macro-F1 is taken over all items.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapters.evaluation.items import use_cases_of
from adapters.evaluation.metrics_edit import edit_f05, gleu, sari
from adapters.evaluation.metrics_label import (
    NO_LABEL,
    brier,
    calibration_error,
    confidence,
    error_cost,
    macro_f1,
    parse_label,
)
from adapters.evaluation.metrics_style import Style
from adapters.evaluation.metrics_summary import coverage, facts_of, kept_share, length_ratio, rouge, supported_share
from adapters.evaluation.refusals import declines
from adapters.evaluation.statistics import Weights, weighted_macro_f1, weighted_mean
from adapters.inference.types import Answer
from adapters.recipe import Metric, Recipe
from adapters.records import Record
from adapters.synthesis.rules import copied_share

WHOLE = ""


@dataclass(frozen=True)
class Scores:
    """The figures of one system by metric, the feature's own (`metric`) among them.

    `per_item` holds a number per item, in the order of the items; `values` a number per use case, and the whole under
    "". `labels` are those read from the answers (macro-F1 only, else empty); `counts` the items per use case.
    """

    metric: Metric
    per_item: dict[str, list[float]]
    values: dict[str, dict[str, float]]
    labels: list[str]
    counts: dict[str, int]

    @property
    def overall(self) -> float:
        """The feature's score."""
        return self.values[self.metric][WHOLE]


def score(recipe: Recipe, items: Sequence[Record], answers: Sequence[Answer], style: Style | None = None) -> Scores:
    """Score the answers, one per item, by the recipe's metric and everything that goes with it.

    `target_style` is there only with a `style` that was learnt.
    """
    metric = recipe.evaluation.metric
    labels: list[str] = []
    if metric == "macro_f1":
        labels = [parse_label(answer.text, recipe.data.labels or []) for answer in answers]
        rows = _label_rows(recipe, items, answers, labels)
    else:
        one = _summary_row if metric == "rouge_l" else _edit_row
        rows = [one(item, answer.text) for item, answer in zip(items, answers, strict=True)]
        if style is not None:
            for row, item, answer in zip(rows, items, answers, strict=True):
                row["target_style"] = style.of(item.use_case, answer.text)
    per_item = {name: [row[name] for row in rows] for name in rows[0]}
    counts = {name: sum(item.use_case == name for item in items) for name in use_cases_of(items)}
    scores = Scores(metric, per_item, {}, labels, counts)
    everyone = np.ones((1, len(items)))
    for name in per_item:
        by_slice = resampled(items, scores, name, everyone)
        scores.values[name] = {group: float(value[0]) for group, value in by_slice.items()}
    if metric == "macro_f1":
        scores.values[metric][WHOLE] = macro_f1([item.targets[0] for item in items], labels)
        stated = [confidence(answer.tokens, answer.logprob) for answer in answers]
        if None not in stated:
            right = [value == 1.0 for value in per_item[metric]]
            error = calibration_error([value or 0.0 for value in stated], right)
            scores.values["calibration_error"] = {WHOLE: error}
    return scores


def resampled(items: Sequence[Record], scores: Scores, metric: str, weights: Weights) -> dict[str, NDArray[np.float64]]:
    """A metric of each use case, and of the whole under "", under each row of `weights` [r, n]: [r]."""
    groups = {name: [at for at, item in enumerate(items) if item.use_case == name] for name in scores.counts}
    values = np.asarray(scores.per_item[metric])
    if metric != "macro_f1":
        slices = {name: weighted_mean(weights[:, chosen], values[chosen].tolist()) for name, chosen in groups.items()}
        return {WHOLE: np.mean(list(slices.values()), axis=0), **slices}
    truth = [item.targets[0] for item in items]
    slices = {
        name: weighted_macro_f1(weights[:, chosen], [truth[at] for at in chosen], [scores.labels[at] for at in chosen])
        for name, chosen in groups.items()
    }
    return {WHOLE: weighted_macro_f1(weights, truth, scores.labels), **slices}


def _summary_row(item: Record, text: str) -> dict[str, float]:
    source = facts_of(item.input)
    return rouge(text, item.targets) | {
        "groundedness": supported_share(text, source),
        "coverage": coverage(text, item.targets),
        "copied": copied_share(text, source),
        "length": length_ratio(text, item.targets),
        **_silence(text),
    }


def _edit_row(item: Record, text: str) -> dict[str, float]:
    return {
        "sari": sari(item.input, text, item.targets),
        "gleu": gleu(item.input, text, item.targets),
        "edit_f05": edit_f05(item.input, text, item.targets),
        "meaning_kept": kept_share(text, item.input),
        "length": length_ratio(text, item.targets),
        **_silence(text),
    }


def _silence(text: str) -> dict[str, float]:
    return {"empty": float(not text.strip()), "refused": float(declines(text) is not None)}


def _label_rows(
    recipe: Recipe, items: Sequence[Record], answers: Sequence[Answer], labels: Sequence[str]
) -> list[dict[str, float]]:
    """Rows of a classifier; `brier` is there only if every answer's probability is known."""
    rows = []
    stated = [confidence(answer.tokens, answer.logprob) for answer in answers]
    for item, label, probability in zip(items, labels, stated, strict=True):
        truth = item.targets[0]
        row = {
            "macro_f1": float(label == truth),
            "accuracy": float(label == truth),
            "error_cost": error_cost(truth, label, recipe.evaluation.costs),
            "empty": float(label == NO_LABEL),
        }
        if probability is not None and None not in stated:
            row["brier"] = brier(probability, label == truth)
        rows.append(row)
    return rows
