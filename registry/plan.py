"""The plan: what a feature's present inputs mean for it, decided without building anything.

Pure functions over what was read: the lineage that a run would have now, the ledger's rows, the catalog's versions.
States, in the order in which they are recognised:

| state | when | what a run does |
|---|---|---|
| fresh | the production version for this base release has these lineage and evaluation keys | nothing |
| held | a rollback took out the version with this lineage key | nothing, until a release hold or another key |
| rejected | what these keys build has failed its gates | nothing, until another key |
| awaiting promotion | a version with these keys is built and has passed | promote it |
| needs evaluation | a version with this lineage key is built, but these keys have no verdict in the ledger | test it |
| stale | nothing was built from these inputs | build, test, register |

A run that was killed between registering a version that failed and recording so leaves "needs evaluation": its
evaluation lies in the store, so the next run repeats nothing and records the verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from adapters.lineage import Lineage, differences
from registry import decisions
from registry.decisions import Row
from registry.versions import Version

State = Literal["fresh", "stale", "needs evaluation", "awaiting promotion", "rejected", "held"]


class Reason(NamedTuple):
    """A key that differs from that of the version compared with; None where a side lacks it."""

    key: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class FeaturePlan:
    """A feature's state for one base release.

    `version` is the version that the state speaks of (None if stale), `production` the one in production for this base
    release. `reasons` compare with version `compared_with`; both are empty if there never was a version.
    """

    feature: str
    state: State
    base_release: str
    lineage_key: str
    evaluation_key: str
    version: int | None = None
    production: int | None = None
    compared_with: int | None = None
    reasons: tuple[Reason, ...] = ()

    @property
    def needs_work(self) -> bool:
        """Whether a run has anything to do for this feature."""
        return self.state in ("stale", "needs evaluation", "awaiting promotion")

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory plan --json`."""
        return {
            "feature": self.feature,
            "state": self.state,
            "base_release": self.base_release,
            "lineage_key": self.lineage_key,
            "evaluation_key": self.evaluation_key,
            "version": self.version,
            "production": self.production,
            "compared_with": self.compared_with,
            "reasons": [reason._asdict() for reason in self.reasons],
        }


def settled_plan(feature: str, lineage: Lineage, rows: Sequence[Row]) -> FeaturePlan | None:
    """The plan if the ledger alone decides it (fresh, held, rejected), else None: then ask `plan_feature`.

    It spares a run with nothing to do the seconds that MLflow takes to start. `rows` are all rows of the feature.
    """
    release = lineage.build["base_release"]
    serving = decisions.production(rows, release)
    if serving and (serving.lineage_key, serving.evaluation_key) == (lineage.key, lineage.evaluation_key):
        return _plan(feature, lineage, rows, "fresh", serving.version)
    for version in reversed(decisions.holds(rows, release)):
        if decisions.lineage_key_of(rows, version) == lineage.key:
            return _plan(feature, lineage, rows, "held", version)
    if rejected := decisions.rejection(rows, lineage.key, lineage.evaluation_key):
        return _plan(feature, lineage, rows, "rejected", rejected.version)
    return None


def plan_feature(feature: str, lineage: Lineage, rows: Sequence[Row], versions: Sequence[Version]) -> FeaturePlan:
    """The feature's state for the base release in `lineage`, given all its rows and all its registered versions."""
    if settled := settled_plan(feature, lineage, rows):
        return settled
    if built := _built_from(lineage, rows, versions):
        if built.passed and built.lineage.evaluation_key == lineage.evaluation_key:
            return _plan(feature, lineage, rows, "awaiting promotion", built.version)
        judged = _reasons(built.lineage.evaluation, lineage.evaluation)
        return replace(
            _plan(feature, lineage, rows, "needs evaluation", built.version),
            compared_with=built.version,
            reasons=judged,
        )
    plan = _plan(feature, lineage, rows, "stale", None)
    if plan.compared_with is None and versions:
        latest = max(versions, key=lambda version: version.version)
        return replace(plan, compared_with=latest.version, reasons=_reasons(latest.lineage.build, lineage.build))
    return plan


def _plan(feature: str, lineage: Lineage, rows: Sequence[Row], state: State, version: int | None) -> FeaturePlan:
    """A plan whose reasons compare with what is in production: for this base release, else wherever it was last."""
    release = lineage.build["base_release"]
    serving = decisions.production(rows, release)
    compared = serving or decisions.last_move(rows)
    return FeaturePlan(
        feature=feature,
        state=state,
        base_release=release,
        lineage_key=lineage.key,
        evaluation_key=lineage.evaluation_key,
        version=version,
        production=serving.version if serving else None,
        compared_with=compared.version if compared else None,
        reasons=_reasons(compared.lineage, lineage.build) if compared else (),
    )


def _built_from(lineage: Lineage, rows: Sequence[Row], versions: Sequence[Version]) -> Version | None:
    """The version with this lineage key: the one in production if it is one of them, else the latest."""
    built = sorted((v for v in versions if v.lineage.key == lineage.key), key=lambda v: v.version)
    serving = decisions.production(rows, lineage.build["base_release"])
    in_production = [version for version in built if serving and version.version == serving.version]
    found = in_production or built
    return found[-1] if found else None


def _reasons(old: dict[str, str], new: dict[str, str]) -> tuple[Reason, ...]:
    return tuple(Reason(*difference) for difference in differences(old, new))
