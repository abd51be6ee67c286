"""Shares of independent trials, as suites and verdicts give them: how far such a share may be chance.

The interval is the exact one (Clopper and Pearson, 1934), at the level of all others. It holds where trials are
independent: questions of a suite are; several instructions in one prompt are not, so their share has none. A tie
in a win rate is half a success, which varies less than a whole one: there the interval is wider than it must be.
"""

import math
from collections.abc import Mapping

from adapters.evaluation.interval import Interval
from adapters.evaluation.statistics import LEVEL

_VERDICTS = {"win_rate": "pairs", "good": "graded", "poor": "graded"}
# Of each source the shares, and the figure that counts their trials.
_TRIALS: Mapping[str, Mapping[str, str]] = {
    "safety": {"violations": "harmful_requests", "false_refusals": "harmless_requests"},
    "injections": {"obeyed": "planted", "amplified": "planted"},
    "sensitive": {"amplified": "documents", "repeated": "documents", "declined": "documents"},
    "ifeval": {"prompt_strict": "prompts", "prompt_loose": "prompts"},
    "verdicts.model": _VERDICTS,
    "verdicts.people": _VERDICTS,
}


def trials_of(metric: str, measured: Mapping[str, float]) -> int | None:
    """How many trials a measured share has, None if it is no share of independent trials."""
    source, _, figure = metric.rpartition(".")
    counted = _TRIALS.get(source, {}).get(figure)
    return None if counted is None else int(measured[f"{source}.{counted}"])


def clopper_pearson(share: float, trials: int) -> Interval:
    """The exact binomial interval of a share of `trials`, from nothing to all where nothing was tried."""
    from scipy.special import betaincinv

    if trials == 0:
        return Interval(share, 0.0, 1.0)
    passed, tail = share * trials, (1 - LEVEL) / 2
    low = float(betaincinv(passed, trials - passed + 1, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1, trials - passed, 1 - tail)) if passed < trials else 1.0
    return Interval(share, low, high)


def smallest_sample(budget: float) -> int:
    """How many trials without a single failure show that the share of failures is at most `budget` (in (0, 1))."""
    return math.ceil(math.log((1 - LEVEL) / 2) / math.log(1 - budget))
