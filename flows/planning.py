"""Read what the plan compares, and make it: nothing is built, no server is started, MLflow is asked only if it must."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.factory import Factory
from registry.base_plan import BasePlan, plan_base
from registry.decisions import BASE
from registry.plan import FeaturePlan, plan_feature, settled_plan


@dataclass(frozen=True)
class Plan:
    """The base release's state, and that of the chosen features once there is a base release key to compare with."""

    base: BasePlan
    names: list[str]
    features: list[FeaturePlan]

    def needs_work(self, promote: bool) -> bool:
        """Whether a run would do anything; without promotion a version that awaits it is no work."""
        waiting = [one for one in self.features if one.needs_work and (promote or one.state != "awaiting promotion")]
        return self.base.needs_work or bool(waiting)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory plan --json`."""
        return {"base": self.base.to_json(), "features": [one.to_json() for one in self.features]}


def make_plan(factory: Factory, names: Sequence[str]) -> Plan:
    """The plan for the named features, all if none is named."""
    chosen = factory.chosen(names)
    base = plan_base(factory.release_lineage(), factory.ledger.rows(BASE))
    # A rejected base release leaves the current one in place, and adapters are built for that.
    key = factory.current_release_key() if base.state == "rejected" else base.key
    return Plan(base, chosen, [plan_one(factory, name, key) for name in chosen] if key else [])


def plan_one(factory: Factory, name: str, release_key: str) -> FeaturePlan:
    """One feature's plan for a base release."""
    lineage = factory.lineage(name, release_key)
    rows = factory.ledger.rows(name)
    return settled_plan(name, lineage, rows) or plan_feature(name, lineage, rows, factory.catalog.versions(name))
