"""Tests of a difference between two systems on the same items, and what such a test is able to see.

Notable choices:
- A score is compared by approximate randomization (Noreen, 1989; Riezler and Maxwell, 2005, "On Some Pitfalls in
  Automatic Evaluation"): if nothing changed, the two systems' answers to a document could as well be swapped. Macro-F1
  is no mean over items, so it is taken anew after each swap.
- Shares of right answers are compared by McNemar's test, exact (McNemar, 1947). Items of one document are one vote: the
  side that is right more often there. With documents of one item each this is McNemar's own test.
- Several use cases are several chances of a false alarm: Holm's procedure (1979) keeps the chance of any at the level.
- "Not worse" is never the absence of significance: the interval's lower bound must lie above minus the margin
  (Committee for Medicinal Products, 2000, "Points to consider on switching between superiority and non-inferiority").
"""

from collections.abc import Mapping, Sequence
from math import comb
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from adapters.evaluation.statistics import LEVEL

POWER = 0.8
# More than the bootstrap's: a p-value that is to be compared with 0.05 / 4 lives in the last percent of the draws.
SWAPS = 10_000
_NORMAL = NormalDist()
_TWO_SIDED = _NORMAL.inv_cdf((1 + LEVEL) / 2)


def per_cluster(differences: Sequence[float], clusters: Sequence[str]) -> NDArray[np.float64]:
    """The sum of the items' differences in each cluster, in order of the clusters' names."""
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(places, weights=np.asarray(differences)).astype(np.float64)
    return sums


def randomization_test(differences: Sequence[float], clusters: Sequence[str], seed: int) -> float:
    """Two-sided p-value that the mean difference is no other than zero; whole clusters are swapped."""
    sums = per_cluster(differences, clusters)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(SWAPS, len(sums)))
    # Rounding must not make an equal sum a smaller one.
    as_far = int((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).sum())
    return (as_far + 1) / (SWAPS + 1)


def macro_f1_test(
    truth: Sequence[str], ours: Sequence[str], theirs: Sequence[str], clusters: Sequence[str], seed: int
) -> float:
    """Two-sided p-value that two systems' labels have no other macro-F1; whole clusters are swapped.

    All swaps are scored at once: of each label, a cluster's hits and claims move from one system to the other.
    """
    names, places = np.unique(np.asarray(clusters), return_inverse=True)
    # Counts are whole numbers, which fp32 holds exactly.
    kept = np.random.default_rng(seed).integers(0, 2, (SWAPS + 1, len(names)), np.uint8).astype(np.float32)
    kept[0] = 1.0  # as measured
    true, one, other = np.asarray(truth), np.asarray(ours), np.asarray(theirs)
    differences = np.zeros(SWAPS + 1)
    # F1 is 2 * hits / (actual + claimed). Neither the 2 nor the number of labels matters to what is farther from zero.
    for label in sorted(set(truth)):
        is_true = true == label
        counts = np.stack(
            [
                np.bincount(places, weights=values)
                for guessed in (one == label, other == label)
                for values in (is_true & guessed, guessed)
            ],
            axis=1,
        )
        moved = (kept @ (counts[:, :2] - counts[:, 2:]).astype(np.float32)).astype(np.float64)  # hits, claims
        first = moved + counts[:, 2:].sum(axis=0)
        second = counts.sum(axis=0).reshape(2, 2).sum(axis=0) - first
        actual = is_true.sum()
        differences += first[:, 0] / (actual + first[:, 1]) - second[:, 0] / (actual + second[:, 1])
    # Rounding must not make an equal difference a smaller one. The measured one is counted with the swaps.
    return float((np.abs(differences) >= abs(differences[0]) - 1e-12).mean())


def mcnemar_test(one: Sequence[bool], other: Sequence[bool], clusters: Sequence[str]) -> float:
    """Two-sided exact p-value that two systems pass equally often, each cluster with one vote at most."""
    sums = per_cluster([float(a) - float(b) for a, b in zip(one, other, strict=True)], clusters)
    wins, losses = int((sums > 0).sum()), int((sums < 0).sum())
    votes = wins + losses
    tail = sum(comb(votes, fewer) for fewer in range(min(wins, losses) + 1))
    return min(2 * tail / 2**votes, 1.0)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: reject those below the level, and the chance of any false rejection is at most the level."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min((len(p_values) - rank) * p_values[name], 1.0))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def detectable_effect(standard_error: float) -> float:
    """The smallest true difference that an interval of level `LEVEL` excludes zero for in `POWER` of such tests."""
    return (_TWO_SIDED + _NORMAL.inv_cdf(POWER)) * standard_error


def false_alarm_rate(standard_error: float, margin: float) -> float:
    """How often a system that is exactly as good fails a test of non-inferiority with this margin."""
    if standard_error == 0:
        return 0.0 if margin >= 0 else 1.0
    return _NORMAL.cdf(_TWO_SIDED - margin / standard_error)
