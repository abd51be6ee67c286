"""The paired bootstrap: how far a difference between two systems on the same items may be chance.

Notable choices:
- Items of one document are one cluster and drawn together: they are not independent evidence.
- Clusters are drawn within groups that cover the same use cases, so no resample lacks a use case.
- A resample is a row of counts (a multinomial draw), so all resamples are scored in one matrix product.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.evaluation.interval import Interval

RESAMPLES = 2000
LEVEL = 0.95

Weights = NDArray[np.float64]


def resample(use_cases: Sequence[str], clusters: Sequence[str], seed: int, resamples: int = RESAMPLES) -> Weights:
    """How often each of n items occurs in each resample: [resamples, n], equal within a cluster."""
    covered: dict[str, set[str]] = defaultdict(set)
    for use_case, cluster in zip(use_cases, clusters, strict=True):
        covered[cluster].add(use_case)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for cluster in sorted(covered):
        groups[tuple(sorted(covered[cluster]))].append(cluster)
    generator = np.random.default_rng(seed)
    counts: dict[str, NDArray[Any]] = {}
    for group in sorted(groups):
        members = groups[group]
        draws = generator.multinomial(len(members), [1 / len(members)] * len(members), size=resamples)
        counts |= dict(zip(members, draws.T, strict=True))
    return np.stack([counts[cluster] for cluster in clusters], axis=1).astype(np.float64)


def weighted_mean(weights: Weights, values: Sequence[float]) -> NDArray[np.float64]:
    """The mean of `values` [n] under each row of `weights` [r, n]: [r]."""
    means: NDArray[np.float64] = weights @ np.asarray(values) / weights.sum(axis=1)
    return means


def weighted_macro_f1(weights: Weights, truth: Sequence[str], predicted: Sequence[str]) -> NDArray[np.float64]:
    """`metrics.macro_f1` under each row of `weights` [r, n]: [r]. Labels that a row does not hold do not count."""
    true, guessed = np.asarray(truth), np.asarray(predicted)
    scores = []
    for label in sorted(set(truth)):
        is_true, is_guessed = true == label, guessed == label
        hits = weights @ (is_true & is_guessed)
        actual, claimed = weights @ is_true, weights @ is_guessed
        scores.append(np.where(actual > 0, 2 * hits / np.maximum(actual + claimed, 1), np.nan))
    means: NDArray[np.float64] = np.nanmean(scores, axis=0)
    return means


def interval(measured: float, resampled: NDArray[np.float64]) -> Interval:
    """The percentile interval of level `LEVEL` around a measured difference."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(measured, float(low), float(high))
