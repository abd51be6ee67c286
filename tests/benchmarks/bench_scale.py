"""Factories of 3, 300 and 3,000 features, simulated on measured stage times: hours, queues, cost.

An event simulation of what workers do: a worker of two cores takes one feature at a time and does its stages one after
the other; what is done waits its turn to be published, one at a time (ledger row, aliases, one signed step of the
channel). The stage times are those of the shipped features and their base release on two cores, the time of a
publication that of a promotion at 1,000 features (docs/benchmarks.md, `promote_seconds`: its work, without
waiting). The features are the three shipped ones, again and again.

Two situations: a new base makes everything stale at once, and a week in which each feature's data changes once, at a
random time.
"""

import heapq
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.common import Figure

# Minutes of data, synthesis, training and answers, and of the stages of a base release.
FEATURE_MINUTES = {
    "summarization": (0.0, 1.6, 3.0, 1.9),
    "writing": (0.0, 0.0, 2.4, 1.9),
    "notifications": (0.1, 0.0, 3.0, 0.4),
}
RELEASE_MINUTES = (0.1, 0.0, 0.5, 0.1, 1.3, 0.6, 0.9)
PUBLICATION_SECONDS = 0.28
CORES = 2
FEATURES = (3, 300, 3000)
WORKERS = (1, 16, 256, 1024)
_WEEK = 7 * 24 * 60.0
_MINUTES = [sum(stages) for stages in FEATURE_MINUTES.values()]


@dataclass(frozen=True)
class Outcome:
    """Minutes from the first job to the last publication; minutes of waiting by job; the longest queues."""

    minutes: float
    latencies: list[float]
    queue: int
    publishing_queue: int


def simulate(jobs: Sequence[tuple[float, float]], workers: int, publication: float) -> Outcome:
    """Jobs as (minute at which it may begin, minutes of work), first come first served; `publication` in minutes."""
    free = [0.0] * workers
    began: list[tuple[float, float]] = []
    built: list[tuple[float, float]] = []
    for ready, work in sorted(jobs):
        start = max(ready, heapq.heappop(free))
        heapq.heappush(free, start + work)
        began.append((ready, start))
        built.append((start + work, ready))
    done, publishing, latencies = 0.0, [], []
    for finished, ready in sorted(built):
        start = max(finished, done)
        done = start + publication
        publishing.append((finished, start))
        latencies.append(done - ready)
    return Outcome(done, latencies, longest_queue(began), longest_queue(publishing))


def longest_queue(waits: Sequence[tuple[float, float]]) -> int:
    """How many waited at once, at most, given when each came and when it was served."""
    steps = sorted([(came, 1) for came, served in waits if served > came] + [(s, -1) for c, s in waits if s > c])
    longest = length = 0
    for (time, step), (following, _) in pairwise([*steps, (float("inf"), 0)]):
        length += step
        if following > time:  # whoever leaves and whoever comes at one moment do so together
            longest = max(longest, length)
    return longest


def all_stale(features: int) -> list[tuple[float, float]]:
    """The jobs after a new base: all features, once it is released."""
    release = sum(RELEASE_MINUTES)
    return [(release, _MINUTES[number % len(_MINUTES)]) for number in range(features)]


def one_week(features: int) -> list[tuple[float, float]]:
    """The jobs of a week in which each feature's data changes once."""
    random_numbers = random.Random(0)
    return [(random_numbers.uniform(0, _WEEK), _MINUTES[number % len(_MINUTES)]) for number in range(features)]


def run() -> list[Figure]:
    """Every situation at every size; the same figures each time."""
    publication = PUBLICATION_SECONDS / 60
    figures = []
    for features in FEATURES:
        minutes = sum(RELEASE_MINUTES) + sum(work for _, work in all_stale(features))
        figures.append(Figure(f"all_stale_{features}_core_hours", "core-h", minutes * CORES / 60))
        for workers in WORKERS:
            found = simulate(all_stale(features), workers, publication)
            name = f"all_stale_{features}_on_{workers}"
            figures.append(Figure(f"{name}_hours", "h", found.minutes / 60))
            figures.append(Figure(f"{name}_queue", "features", found.queue))
            figures.append(Figure(f"{name}_publishing_queue", "features", found.publishing_queue))
        for workers in (1, 2):
            found = simulate(one_week(features), workers, publication)
            name = f"one_week_{features}_on_{workers}"
            figures.append(Figure(f"{name}_median_minutes", "min", statistics.median(found.latencies)))
            figures.append(Figure(f"{name}_queue", "features", found.queue))
    bottleneck = statistics.mean(_MINUTES) / publication
    return [*figures, Figure("workers_that_one_publisher_keeps_up_with", "workers", bottleneck)]
