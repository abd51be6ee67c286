"""The plan: what a feature's present inputs mean for it, decided from the ledger alone without building anything.

Pure functions over what was read: the lineage that a run would have now, and the ledger's rows (all of the feature, or
those that `Ledger.deciding` picks). States, in the order in which they are recognised:

| state | when | what a run does |
|---|---|---|
| fresh | the production version for this base release has these lineage and evaluation keys | nothing |
| rolling out | a share of the devices has the version with this lineage key | nothing: people go on, or halt |
| held | a rollback took out the version with this lineage key | nothing, until a release hold or another key |
| rejected | what these keys build has failed its gates | nothing, until another key |
| awaiting promotion | these keys built a version that passed against what is in production now | promote it |
| needs evaluation | they built one, but it has no verdict under these keys and against that | test it |
| stale | the ledger knows of nothing that was built from these inputs | build, test, register |

A run that was killed between registering a version and writing its row leaves "stale": everything lies in the store
under its key, so the next run repeats nothing, finds the version again and writes the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from adapters.lineage import Lineage, differences
from registry import decisions
from registry.approvals import expiry, open_request
from registry.decisions import Row

State = Literal["fresh", "stale", "needs evaluation", "awaiting promotion", "rejected", "held", "rolling out"]
# The name under which another production version is among the reasons for another evaluation.
PRODUCTION = "production"


class Reason(NamedTuple):
    """A key that differs from that of the version compared with; None where a side lacks it.

    `changed` says since when, where that is known: UTC, ISO 8601.
    """

    key: str
    old: str | None
    new: str | None
    changed: str | None = None


@dataclass(frozen=True)
class FeaturePlan:
    """A feature's state for one base release.

    `version` is the version that the state speaks of (None if stale), `production` the one in production for this base
    release. `reasons` compare with version `compared_with`; both are empty if there never was a version. `request` is
    the number of an open request to promote `version`. `cost_seconds` estimates what a run would take, None where
    nothing was ever measured; `blocked_by` says in words what stands in the way.
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
    request: int | None = None
    cost_seconds: float | None = None
    blocked_by: str | None = None

    @property
    def needs_work(self) -> bool:
        """Whether a run has anything to do for this feature."""
        if self.state == "awaiting promotion":
            return self.request is None
        return self.state in ("stale", "needs evaluation")

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
            "request": self.request,
            "cost_seconds": None if self.cost_seconds is None else round(self.cost_seconds, 1),
            "blocked_by": self.blocked_by,
        }


def plan_feature(
    feature: str, lineage: Lineage, rows: Sequence[Row], approval_days: float | None = None
) -> FeaturePlan:
    """The feature's state for the base release in `lineage`; `approval_days` as for `registry.promotion.promote`."""
    release = lineage.build["base_release"]
    serving = decisions.production(rows, release)
    if serving and (serving.lineage_key, serving.evaluation_key) == (lineage.key, lineage.evaluation_key):
        return _plan(feature, lineage, rows, "fresh", serving.version)
    rollout = decisions.staged(rows, release)
    if rollout and rollout.lineage_key == lineage.key:
        why = f"{rollout.share:.0%} of the devices have it since {rollout.time[:19]}; `factory rollout` goes on"
        return _plan(feature, lineage, rows, "rolling out", rollout.version, blocked_by=why)
    for version, row in reversed(decisions.holds(rows, release).items()):
        if decisions.lineage_key_of(rows, version) == lineage.key:
            why = f"held by {row.actor} since {row.time[:19]}: {row.reason}"
            return _plan(feature, lineage, rows, "held", version, blocked_by=why)
    if rejected := decisions.rejection(rows, lineage.key, lineage.evaluation_key):
        why = f"decision {rejected.number}: {rejected.reason}"
        return _plan(feature, lineage, rows, "rejected", rejected.version, blocked_by=why)
    built = decisions.verdict(rows, lineage.key)
    if built is None:
        return _plan(feature, lineage, rows, "stale", None)
    reasons = _judged_otherwise(built, lineage, rows)
    agreed = built.action == "approve" and built.overruled  # somebody saw what failed, and it is to be promoted
    if (reasons or not decisions.has_passed(built)) and not agreed:
        state: State = "needs evaluation"
        return _plan(feature, lineage, rows, state, built.version, reasons=reasons, compared_with=built.version)
    return _awaiting(feature, lineage, rows, built.version, approval_days)


def _awaiting(
    feature: str, lineage: Lineage, rows: Sequence[Row], version: int, approval_days: float | None
) -> FeaturePlan:
    request = open_request(rows, version, approval_days) if approval_days is not None else None
    if request is None or approval_days is None:
        return _plan(feature, lineage, rows, "awaiting promotion", version)
    until = f"{expiry(request, approval_days):%Y-%m-%dT%H:%M}"
    why = f"asked by {request.actor}; somebody else must approve it until {until} UTC"
    return _plan(feature, lineage, rows, "awaiting promotion", version, request=request.number, blocked_by=why)


def _plan(
    feature: str, lineage: Lineage, rows: Sequence[Row], state: State, version: int | None, **more: Any
) -> FeaturePlan:
    """A plan whose reasons compare with what is in production: for this base release, else wherever it was last."""
    release = lineage.build["base_release"]
    serving = decisions.production(rows, release)
    compared = serving or decisions.last_move(rows) or (rows[-1] if rows else None)
    found: dict[str, Any] = {
        "production": serving.version if serving else None,
        "compared_with": compared.version if compared else None,
        "reasons": _reasons(compared.lineage, lineage.build) if compared else (),
    }
    return FeaturePlan(
        feature, state, release, lineage.key, lineage.evaluation_key, **({"version": version} | found | more)
    )


def _judged_otherwise(built: Row, lineage: Lineage, rows: Sequence[Row]) -> tuple[Reason, ...]:
    """How the verdict that a row carries differs from one that would be reached now."""
    reasons: tuple[Reason, ...] = ()
    if built.evaluation_key != lineage.evaluation_key:
        reasons = _reasons(built.evaluation, lineage.evaluation) if built.evaluation is not None else ()
        reasons = reasons or (Reason("evaluation", built.evaluation_key, lineage.evaluation_key),)
    champion = decisions.champion(rows, lineage.build["base_release"], built.version)
    if champion is not None and champion.package != built.champion:
        reasons += (Reason(PRODUCTION, built.champion, champion.package, champion.time),)
    return reasons


def _reasons(old: dict[str, str], new: dict[str, str]) -> tuple[Reason, ...]:
    return tuple(Reason(*difference) for difference in differences(old, new))
