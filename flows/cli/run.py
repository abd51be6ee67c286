"""`factory init`, `plan`, `run`: from a change to production."""

import contextlib
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import PATIENCE, AsJson, Home, print_json, print_table, say, short
from infra.errors import Unavailable, masked

if TYPE_CHECKING:
    from flows.factory import Factory
    from flows.planning import Plan
    from registry.plan import Reason

Features = Annotated[list[str] | None, typer.Argument(help="Features; all if none is named.")]
Profile = Annotated[str | None, typer.Option(help="quick or full (default: quick, or FACTORY_PROFILE).")]
Promote = Annotated[bool, typer.Option(help="Promote what passes its gates.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (init, run, plan):
        app.command()(command)


def init(home: Home = None) -> None:
    """Make the workspace; `run` does so by itself."""
    from flows.factory import open_factory

    factory = open_factory(home)
    with factory.workspace.lock():
        factory.data.init()
        factory.ledger.rows("base")
        factory.channel().start()
    say(f"workspace {factory.workspace.root}: {len(factory.features)} features, {', '.join(factory.features)}")


def plan(
    features: Features = None,
    if_base: Annotated[
        str | None, typer.Option(help="What would this base model (a source, as for `base release`) trigger?")
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: Profile = None,
) -> None:
    """Say what is fresh, what is not, why, since when, at what cost, and what is in the way; nothing is built."""
    from flows.factory import open_factory
    from flows.planning import make_plan

    factory = open_factory(home, profile)
    digest = factory.base_digest(if_base) if if_base else None
    found = make_plan(factory, features or [], digest)
    if json:
        asked = {"if_base": {"source": if_base, "base_model": digest}} if if_base else {}
        print_json(asked | found.to_json())
        return
    print_plan(found)


def print_plan(found: "Plan") -> None:
    """The plan as a table, a line a reason."""
    base = found.base
    rows: list[list[object]] = [
        ["base release", base.state, base.version, _reasons(base.reasons), _cost(base.cost_seconds), base.blocked_by]
    ]
    rows += [
        [one.feature, one.state, one.production, _reasons(one.reasons), _cost(one.cost_seconds), one.blocked_by]
        for one in found.features
    ]
    if not found.features and found.base.needs_work:
        rows += [[name, "stale", None, "", None, "waits for the base release"] for name in found.names]
    print_table(["", "state", "production", "why", "about", "in the way"], rows)


def _reasons(reasons: Sequence["Reason"]) -> str:
    lines = (f"{one.key}: {short(one.old)} → {short(one.new)}" + _since(one.changed) for one in reasons)
    return "\n".join(lines)


def _since(time: str | None) -> str:
    return f" ({time[:16]})" if time else ""


def _cost(seconds: float | None) -> str | None:
    if not seconds:
        return None
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def run(
    features: Features = None,
    promote: Promote = True,
    home: Home = None,
    profile: Profile = None,
    json: AsJson = False,
) -> None:
    """Bring every feature to what its inputs say now: rebuild, test, register, promote what is stale."""
    from flows.factory import open_factory

    factory = open_factory(home, profile)
    code = run_once(factory, features or [], promote, json)
    if code:
        sys.exit(code)


def run_once(factory: "Factory", features: list[str], promote: bool, json: bool) -> int:
    """One run under the workspace's lock; returns the exit code."""
    from flows.events import changing
    from flows.planning import make_plan
    from registry.projection import repair

    started = time.monotonic()
    with changing(factory, "run"):
        with factory.workspace.lock("decisions", PATIENCE):
            repair(factory.registry)  # a killed command may have left a decision that is not carried out
        found = make_plan(factory, features)
        outcomes: list[dict[str, Any]] = []
        if found.needs_work(promote):
            outcomes = _work(factory, features, promote)
            found = make_plan(factory, features)
    if json:
        print_json({"plan": found.to_json(), "outcomes": outcomes, "seconds": round(time.monotonic() - started, 1)})
    elif outcomes:
        print_outcomes(outcomes, time.monotonic() - started, factory)
    else:
        print_plan(found)
        say(f"nothing to do ({time.monotonic() - started:.1f} s)")
    return 1 if any(outcome["error"] or outcome["passed"] is False for outcome in outcomes) else 0


def _work(factory: "Factory", features: list[str], promote: bool) -> list[dict[str, Any]]:
    """Run the flow: Prefect is started only now that there is work."""
    from infra.s3 import be_patient

    factory.workspace.require_room()
    be_patient()
    with prefect_of(factory):
        from flows.run_plan import run_plan

        return run_plan(str(factory.workspace.root), factory.settings.profile, features, promote)


def prefect_of(factory: "Factory") -> AbstractContextManager[None]:
    """Prefect for the flows of a block, a server of this command's own if none is set.

    While that starts, which takes seconds, what every flow needs is imported, and MLflow opened.
    """
    from infra.prefect_server import prefect_api

    def prepare() -> None:
        import flows.run_plan  # noqa: F401

        with contextlib.suppress(Unavailable):  # whoever needs MLflow says that it is away, and tries again
            factory.catalog.releases()

    return prefect_api(factory.workspace.prefect, prepare)


def print_outcomes(outcomes: list[dict[str, Any]], seconds: float, factory: "Factory") -> None:
    """The closing table, and below it what went wrong and where to look next."""
    columns = ["", "ver", "state", "gates", "score", "baseline", "bits/weight", "MB"]
    print_table(columns, [_row(one) for one in outcomes])
    print_table(["", "minutes", "stage by stage"], [_minutes(one) for one in outcomes])
    for one in outcomes:
        for gate in one["gates"]:
            if not gate["passed"]:
                kind = "warning" if gate.get("severity") == "warn" else "gate"
                say(f"{one['subject']}: {kind} {gate['name']}: {gate['detail']}")
        if one["error"]:
            say(f"{one['subject']}: {one['error']}")
    for one in outcomes:
        if one["report"]:
            say(f"{one['subject']}: {one['report']}")
    root = factory.workspace.root
    say(f"\n{seconds / 60:.1f} minutes. Bits per weight: linear weights / all / all and the recovery adapter")
    say("next:     factory registry list, factory history FEATURE, factory generate FEATURE < text")
    say(f"MLflow:   mlflow ui --backend-store-uri {masked(factory.tracking_uri)}")
    say(f"devices:  download from {factory.settings.channel or root / 'channel'}; `factory channel show`")


def _row(one: dict[str, Any]) -> list[object]:
    from flows.outcome import stops

    failed = [gate["name"] for gate in one["gates"] if stops(gate)]
    return [
        one["subject"],
        one["version"],
        one["state"],
        "failed: " + ", ".join(failed) if failed else ("passed" if one["passed"] else None),
        _figure(one["figures"].get("candidate")),
        _figure(one["figures"].get("baseline")),
        "/".join(f"{value:.2f}" for value in one["bits_per_weight"]) or None,
        _figure(one["adapter_mb"], 1),
    ]


def _minutes(one: dict[str, Any]) -> list[object]:
    spent = [f"{name} {cost / 60:.1f}" for name, cost in one["seconds"].items() if cost >= 3]
    return [one["subject"], _figure(sum(one["seconds"].values()) / 60, 1), ", ".join(spent) or None]


def _figure(value: float | None, digits: int = 3) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
