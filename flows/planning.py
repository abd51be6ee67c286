"""Read what the plan compares, and make it: nothing is built, no server is started, MLflow is not asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.events import Announced, announced_base
from flows.factory import Factory
from flows.stops import stop_of
from infra.dvc_data import ADDED, REMOVED
from registry import decisions
from registry.base_plan import BasePlan, plan_base
from registry.costs import base_cost, feature_cost
from registry.decisions import BASE, Row
from registry.plan import FeaturePlan, plan_feature


@dataclass(frozen=True)
class Plan:
    """The base release's state, and that of the chosen features once there is a base release key to compare with.

    `announced` is the base model that somebody announced and that is to be released first.
    """

    base: BasePlan
    names: list[str]
    features: list[FeaturePlan]
    announced: Announced | None = None

    def needs_work(self, promote: bool) -> bool:
        """Whether a run would do anything; without promotion a version that awaits it is no work."""
        waiting = [one for one in self.features if one.needs_work and (promote or one.state != "awaiting promotion")]
        return self.announced is not None or self.base.needs_work or bool(waiting)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory plan --json`."""
        announced = {"announced": self.announced.source} if self.announced else {}
        return {"base": self.base.to_json(), "features": [one.to_json() for one in self.features]} | announced


def make_plan(factory: Factory, names: Sequence[str], base_digest: str | None = None) -> Plan:
    """The plan for the named features, all if none is named.

    `base_digest` asks what would hold if the base model with this digest were released, instead of the current one.
    """
    chosen = factory.chosen(names)
    releases = factory.ledger.rows(BASE)
    wanted = factory.release_lineage_of(base_digest) if base_digest else factory.release_lineage()
    base = plan_base(wanted, releases)
    measured = factory.notes.seconds()
    base = replace(base, cost_seconds=base_cost(base, measured.get(BASE, {})))
    # A rejected base release leaves the current one in place, and adapters are built for that.
    key = factory.current_release_key() if base.state == "rejected" else base.key
    announced = None if base_digest else announced_base(factory)
    if key is None:
        return Plan(base, chosen, [], announced)
    lineages = {name: factory.lineage(name, key) for name in chosen}
    rows = factory.ledger.deciding([lineage.key for lineage in lineages.values()])
    stops = factory.notes.stops()
    features: list[FeaturePlan] = []
    for name, lineage in lineages.items():
        days = factory.feature(name).recipe.promotion.approval_days
        plan = plan_feature(name, lineage, rows.get(name, []), days)
        stop_key, error = stops.get(name, ("", ""))
        blocked_by = plan.blocked_by
        if plan.needs_work:
            blocked_by = f"stopped the last run: {error}" if stop_key == stop_of(plan) else blocked_by
            blocked_by = "waits for the base release" if base.needs_work or announced else blocked_by
        cost = feature_cost(plan, measured.get(name, {}))
        features.append(replace(_dated(factory, plan, releases), cost_seconds=cost, blocked_by=blocked_by))
    return Plan(base, chosen, features, announced)


def _dated(factory: Factory, plan: FeaturePlan, releases: Sequence[Row]) -> FeaturePlan:
    """The plan with the times since when its reasons hold, where the ledger or a file's last change tells."""
    if not plan.reasons:
        return plan
    made = {row.base_release: row.time for row in releases if row.action in decisions.MOVES}
    times = _written(factory, plan.feature)

    def since(key: str, new: str | None) -> str | None:
        if key == "base_release":
            return made.get(new or "")
        return times.get("data" if key in ("data", "held_out") else "recipe" if key == "seed" else key.split(".")[0])

    reasons = (one if one.changed else one._replace(changed=since(one.key, one.new)) for one in plan.reasons)
    return replace(plan, reasons=tuple(reasons))


def _written(factory: Factory, name: str) -> Mapping[str, str]:
    """When the files of a feature's records, and its recipe, were last written."""
    feature = factory.feature(name)
    recipe = feature.folder / "recipe.yaml"
    data = [feature.folder / entry for entry in feature.recipe.data.corpus]
    data += [factory.data.folder / name / file for file in (ADDED, REMOVED)]
    found = {"recipe": _last_written([recipe]), "data": _last_written(data)}
    return {kind: time for kind, time in found.items() if time is not None}


def _last_written(paths: Sequence[Path]) -> str | None:
    times = [path.stat().st_mtime for path in paths if path.is_file()]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") if times else None
