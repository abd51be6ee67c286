"""Two systems between which nothing changed: scores by item as real evaluations stored them, swapped at random."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from adapters.evaluation.scores import Scores, resampled
from adapters.recipe import Metric
from adapters.records import Record
from tests.adapters.evaluation_cases import record


def stored(name: str) -> tuple[list[Record], Scores, Scores]:
    """Items and two systems' scores by item as a real evaluation stored them, without any text."""
    rows = json.loads((Path(__file__).parent / "stored_scores.json").read_text("utf-8"))[name]
    chosen = [
        record(f"n{at}", row["use_case"], f"text {at}", row.get("truth", "x")) for at, row in enumerate(rows["items"])
    ]
    return chosen, *(scores_from(rows["metric"], chosen, rows[side]) for side in ("one", "other"))


def scores_from(metric: Metric, chosen: list[Record], side: list[Any]) -> Scores:
    labels = side if metric == "macro_f1" else []
    values = [float(a == b.targets[0]) for a, b in zip(side, chosen, strict=True)] if labels else side
    counts = {item.use_case: sum(other.use_case == item.use_case for other in chosen) for item in chosen}
    made = Scores(metric, {metric: values}, {}, labels, counts)
    plain = resampled(chosen, made, metric, np.ones((1, len(chosen))))
    made.values[metric] = {part: float(value[0]) for part, value in plain.items()}
    return made


def unchanged(chosen: list[Record], one: Scores, other: Scores, seed: int) -> tuple[Scores, Scores]:
    """The two with each item's answers swapped or not: between what comes out nothing differs but chance."""
    generator = random.Random(seed)
    metric = one.metric
    sides = (one.labels, other.labels) if one.labels else (one.per_item[metric], other.per_item[metric])
    pairs = [(a, b) if generator.random() < 0.5 else (b, a) for a, b in zip(*sides, strict=True)]
    left, right = ([pair[side] for pair in pairs] for side in (0, 1))
    return scores_from(metric, chosen, left), scores_from(metric, chosen, right)
