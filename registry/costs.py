"""What a rebuild would cost: the last measured seconds of the stages that it would repeat.

An estimate: a stage may be in the store from an earlier build of the same keys, and then costs nothing.
"""

from collections.abc import Collection, Mapping

from registry.base_plan import BasePlan
from registry.plan import FeaturePlan

# A feature's stages in their order, and the lineage keys that each is the first to read.
_STAGES = {
    "data": ("data", "recipe.data", "code.data"),
    "synthesis": ("recipe.synthesis", "code.synthesis", "base_release"),
    "training": ("recipe.training", "seed", "code.examples", "code.training"),
    "package": ("recipe.device", "code.device"),
    "answers": (),
    "evaluation": (),
}
_TESTS = ("answers", "evaluation")
_RELEASE_STAGES = (
    "calibration", "sensitivities", "palettized", "tuned", "recovery", "aimodel", "evidence", "release",
)  # fmt: skip


def feature_cost(plan: FeaturePlan, measured: Mapping[str, float]) -> float | None:
    """Seconds that a run would take for a feature; None if none of its stages was ever measured.

    `measured` holds the seconds of its stages when they were last built.
    """
    if plan.state not in ("stale", "needs evaluation"):
        return 0.0
    keys = {reason.key for reason in plan.reasons}
    if plan.state == "needs evaluation":
        return _sum(_TESTS if "held_out" not in keys else ("data", *_TESTS), measured)
    stages = list(_STAGES)
    first = next((stage for stage, read in _STAGES.items() if keys.intersection(read)), stages[0])
    return _sum(stages[stages.index(first) :], measured)


def base_cost(plan: BasePlan, measured: Mapping[str, float]) -> float | None:
    """The same for a base release, all stages of which are repeated for another base model."""
    return _sum(_RELEASE_STAGES, measured) if plan.needs_work else 0.0


def _sum(stages: Collection[str], measured: Mapping[str, float]) -> float | None:
    found = [measured[stage] for stage in stages if stage in measured]
    return sum(found) if found else None
