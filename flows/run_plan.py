"""Do what the plan says: release the base if it must be, then bring each feature up to date, one after the other."""

from typing import Any

from prefect import flow

from flows.factory import open_factory
from flows.outcome import Outcome
from flows.planning import make_plan
from flows.release_base import release_base
from flows.retrain import retrain
from infra.errors import FactoryError
from registry.projection import repair


@flow(name="run-plan", validate_parameters=False)
def run_plan(home: str | None, profile: str | None, features: list[str], promote: bool) -> list[dict[str, Any]]:
    """Returns an `Outcome` as a mapping for the base release, if it was made, and for each feature that needed work.

    A feature that fails its checks or its gates leaves the others alone.
    """
    factory = open_factory(home, profile)
    repair(factory.registry)
    outcomes: list[dict[str, Any]] = []
    found = make_plan(factory, features)
    if found.announced or found.base.needs_work:
        outcomes.append(release_base(home, profile, found.announced.source if found.announced else None))
        if outcomes[-1]["passed"] is False and factory.ledger.current_release() is None:
            return outcomes
    for plan in make_plan(factory, features).features:
        if plan.needs_work and (promote or plan.state != "awaiting promotion"):
            try:
                outcomes.append(retrain(home, profile, plan.feature, promote))
            except FactoryError as error:
                outcomes.append(Outcome(plan.feature, "stopped", error=str(error)).to_json())
    return outcomes
