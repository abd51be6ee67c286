"""`factory rollout`: what a share of the devices gets before all do."""

import re
from typing import Annotated

import typer

from flows.cli.output import PATIENCE, AsJson, Home, print_json, say
from infra.errors import FactoryError

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")


def register(top: typer.Typer) -> None:
    """Add the command to the top level."""
    top.command()(rollout)


def share_of(text: str) -> float:
    """The share, between 0 and 1, that somebody wrote as `5%`.

    Raises:
        FactoryError: it is none.
    """
    found = _PERCENT.fullmatch(text)
    if not found or not 0 < float(found[1]) <= 100:
        raise FactoryError(f"{text!r} is no share of the devices: write 5%, 50%, 100%")
    return float(found[1]) / 100


def rollout(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    share: Annotated[str | None, typer.Argument(help="Share of the devices, 50%; 100% ends the rollout.")] = None,
    halt: Annotated[
        bool, typer.Option("--halt", help="All devices go back to production; the version is held.")
    ] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Go on with a rollout that `promote --rollout` began, or halt it."""
    from flows.events import changing
    from flows.factory import open_factory
    from registry import rollout as rollouts

    if (share is None) != halt:
        raise FactoryError("name the share of the devices, as in `factory rollout FEATURE 50%`, or --halt")
    wanted = share_of(share) if share is not None else 0.0
    factory = open_factory(home)
    factory.feature(feature)
    with changing(factory, "decisions", PATIENCE):
        if halt:
            row = rollouts.halt(factory.registry, feature, actor=factory.actor, reason=reason)
        else:
            row = rollouts.step(factory.registry, feature, wanted, actor=factory.actor, reason=reason)
    if json:
        print_json(row.model_dump(mode="json"))
    elif halt:
        say(f"{feature} {row.version} for all devices (decision {row.number}); {row.replaced} is held")
    elif row.action == "promote":
        say(f"{feature} {row.version} is in production (decision {row.number}, replaced {row.replaced or 'nothing'})")
    else:
        say(f"{feature} {row.version} for {row.share:.0%} of the devices (decision {row.number})")
