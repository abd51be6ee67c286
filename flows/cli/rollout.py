"""`factory rollout`: what a share of the devices gets before all do."""

from typing import Annotated

import typer

from flows.cli.decide import what_devices_get
from flows.cli.output import PATIENCE, AsJson, BaseRelease, Home, print_json, say, share_of
from infra.errors import FactoryError


def register(top: typer.Typer) -> None:
    """Add the command to the top level."""
    top.command()(rollout)


def rollout(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    share: Annotated[str | None, typer.Argument(help="Share of the devices, 50%; 100% ends the rollout.")] = None,
    halt: Annotated[
        bool, typer.Option("--halt", help="All devices go back to production; the version is held.")
    ] = False,
    base_release: BaseRelease = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Go on with a rollout that `promote --rollout` began, or halt it."""
    from flows.events import changing
    from flows.factory import open_factory
    from registry import rollout as rollouts
    from registry.checks import release_named

    if (share is None) != halt:
        raise FactoryError("name the share of the devices, as in `factory rollout FEATURE 50%`, or --halt")
    wanted = share_of(share) if share is not None else 0.0
    factory = open_factory(home)
    factory.require_known(feature)
    with changing(factory, "decisions", PATIENCE):
        key = release_named(factory.ledger, base_release)
        decision = {"actor": factory.actor, "reason": reason, "base_release": key}
        if halt:
            row = rollouts.halt(factory.registry, feature, **decision)
        else:
            row = rollouts.step(factory.registry, feature, wanted, **decision)
    if json:
        print_json(row.model_dump(mode="json"))
    elif halt:
        say(f"{feature} {row.version} for all devices (decision {row.number}); {row.replaced} is held")
    else:
        say(what_devices_get(row))
