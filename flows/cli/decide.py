"""Decisions about production: `factory promote`, `approve`, `rollback`, `release-hold`, `history`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import PATIENCE, AsJson, BaseRelease, Home, print_json, print_table, say, share_of, short

if TYPE_CHECKING:
    from registry.decisions import Row
    from registry.projection import Registry
    from registry.promotion import Proposal

FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]
Version = Annotated[int, typer.Argument(help="The version.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]


def register(top: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (promote, approve, rollback, history):
        top.command()(command)
    top.command("release-hold")(release_hold)


def promote(
    feature: FeatureName,
    version: Version,
    reason: Reason,
    force: Annotated[bool, typer.Option(help="Overrule failed gates; they go into the ledger.")] = False,
    rollout: Annotated[str | None, typer.Option(help="Begin with a share of the devices: 5%.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would happen.")] = False,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Put a version in production: ledger row, alias, package in the channel."""
    from flows.events import changing
    from flows.factory import open_factory
    from registry import promotion
    from registry import rollout as rollouts
    from registry.approvals import expiry

    factory = open_factory(home)
    days = factory.feature(feature).recipe.promotion.approval_days
    checks: dict[str, Any] = {"actor": factory.actor, "reason": reason, "force": force, "approval_days": days}
    share = share_of(rollout) if rollout is not None else None
    if dry_run:
        if share is None:
            proposal = promotion.propose(factory.registry, feature, version, **checks)
        else:
            proposal = rollouts.propose(factory.registry, feature, version, share, **checks)
        _say_what_would_happen(factory.registry, proposal, json)
        return
    with changing(factory, "decisions", PATIENCE):
        if share is None:
            row = promotion.promote(factory.registry, feature, version, **checks)
        else:
            row = rollouts.start(factory.registry, feature, version, share, **checks)
    if json:
        print_json(row.model_dump(mode="json"))
    elif row.action == "request" and days is not None:
        say(f"{feature} {row.version} waits for approval (decision {row.number}) until {expiry(row, days):%F %R} UTC:")
        say(f"somebody other than {row.actor} runs `factory approve {feature} {row.version} --reason …`")
    else:
        say(what_devices_get(row))


def what_devices_get(row: "Row") -> str:
    """What a promotion, or a step of a rollout, has changed, in a line."""
    subject = f"{row.feature} {row.version}"
    if row.share is not None:
        return f"{subject} for {row.share:.0%} of the devices (decision {row.number}); next: factory rollout"
    return f"{subject} is in production (decision {row.number}, replaced {row.replaced or 'nothing'})"


def _say_what_would_happen(registry: "Registry", proposal: "Proposal", json: bool) -> None:
    from adapters.device.channel_layout import TARGETS, package_path
    from registry.projection import unfinished

    first = unfinished(registry)
    decision = proposal.decision
    if json:
        would = decision.model_dump(mode="json") if decision else None
        stands = proposal.stands.number if proposal.stands else None
        print_json({"would_write": would, "stands": stands, "would_repair": first})
        return
    for line in first:
        say(f"would first bring aliases and channel up to {line}")
    if decision is None:
        assert proposal.stands is not None
        say(f"nothing would change: decision {proposal.stands.number} ({proposal.stands.action}) says so already")
        return
    say(f"would write: {decision.action} {decision.feature} {decision.version}, by {decision.actor}: {decision.reason}")
    if decision.overruled:
        say(f"overruling: {', '.join(decision.overruled)}")
    if decision.action == "request":
        say("production would stay as it is until somebody else approves")
        return
    release = short(decision.base_release)
    if decision.share is not None:
        say(f"beside production for base release {release}: {decision.version} for {decision.share:.0%} of the devices")
    else:
        say(f"in production for base release {release}: {decision.replaced or '–'} → {decision.version}")
    package = package_path(decision.feature, decision.base_release, decision.version)
    say(f"in the channel: {registry.channel.place}/{TARGETS}/{package}")


def approve(feature: FeatureName, version: Version, reason: Reason, json: AsJson = False, home: Home = None) -> None:
    """Agree to somebody else's promotion of a feature whose recipe asks for a second person."""
    from flows.events import changing
    from flows.factory import open_factory
    from infra.prefect_server import server_url
    from registry import promotion

    factory = open_factory(home)
    days = factory.feature(feature).recipe.promotion.request_days
    decision: dict[str, Any] = {"actor": factory.actor, "reason": reason, "approval_days": days}
    with changing(factory, "decisions", PATIENCE):
        row = promotion.approve(factory.registry, feature, version, **decision)
        if not server_url():
            row = promotion.promote(factory.registry, feature, version, **decision)
    if json:
        print_json(row.model_dump(mode="json"))
        return
    if row.action == "approve":
        say(f"{feature} {row.version} is approved (decision {row.number}); a run promotes it")
        return
    say(what_devices_get(row))


def rollback(
    feature: FeatureName,
    reason: Reason,
    to: Annotated[int | None, typer.Option(help="An earlier version; default: the previous good one.")] = None,
    base_release: BaseRelease = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Go back to the previous good version; what is taken out is held until `release-hold`."""
    from flows.events import changing
    from flows.factory import open_factory
    from registry import promotion
    from registry.checks import release_named

    factory = open_factory(home)
    factory.require_known(feature)
    with changing(factory, "decisions", PATIENCE):
        key = release_named(factory.ledger, base_release)
        row = promotion.rollback(factory.registry, feature, actor=factory.actor, reason=reason, to=to, base_release=key)
    if json:
        print_json(row.model_dump(mode="json"))
        return
    say(f"{feature} {row.version} is in production again (decision {row.number}); {row.replaced} is held")


def release_hold(
    feature: FeatureName,
    reason: Reason,
    base_release: BaseRelease = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Let what a rollback took out be promoted again."""
    from flows.events import changing
    from flows.factory import open_factory
    from registry import promotion
    from registry.checks import release_named

    factory = open_factory(home)
    factory.require_known(feature)
    with changing(factory, "decisions", PATIENCE):
        key = release_named(factory.ledger, base_release)
        rows = promotion.release_hold(factory.registry, feature, actor=factory.actor, reason=reason, base_release=key)
    if json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    say(f"{feature}: {', '.join(str(row.version) for row in rows)} may be promoted again")


def history(
    feature: Annotated[str, typer.Argument(help="A feature's name, or `base`.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Every decision about a feature: when, who, what, why."""
    from flows.factory import open_factory

    factory = open_factory(home)
    if feature != "base":
        factory.require_known(feature)
    rows = factory.ledger.rows(feature)
    if json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    shown: list[list[Any]] = [
        [
            row.number,
            row.time[:19],
            row.action,
            row.version,
            row.replaced,
            row.actor,
            row.reason,
            short(row.base_release),
        ]
        for row in rows
    ]
    columns = ["no.", "time (UTC)", "action", "version", "replaced", "by", "reason", "base release"]
    print_table(columns, shown, title=feature)
