"""What exists and what may ship: `factory registry …`, `history`, `promote`, `rollback`, `release-hold`."""

from json import loads
from typing import Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say, short

app = typer.Typer(help="Browse features and versions.", no_args_is_help=True)
FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]


def register(top: typer.Typer) -> None:
    """Add the commands that stand at the top level."""
    for command in (promote, rollback, history):
        top.command()(command)
    top.command("release-hold")(release_hold)


@app.command("list")
def list_features(json: AsJson = False, home: Home = None) -> None:
    """List features: what is in production, since when, by whom."""
    from flows.factory import open_factory
    from registry import decisions

    factory = open_factory(home)
    current = factory.ledger.current_release()
    rows: list[dict[str, Any]] = []
    for name in factory.features:
        of_feature = factory.ledger.rows(name)
        serving = decisions.production(of_feature, current.base_release) if current else None
        rows.append(
            {
                "feature": name,
                "production": serving.version if serving else None,
                "since": serving.time if serving else None,
                "by": serving.actor if serving else None,
                "base_release": serving.base_release if serving else None,
                "decisions": len(of_feature),
            }
        )
    if json:
        print_json(rows)
        return
    shown = [
        [r["feature"], r["production"], (r["since"] or "–")[:19], r["by"], short(r["base_release"]), r["decisions"]]
        for r in rows
    ]
    print_table(["feature", "production", "since (UTC)", "by", "base release", "decisions"], shown)


@app.command()
def show(
    feature: FeatureName,
    version: Annotated[int | None, typer.Argument(help="A version; all of them if left out.")] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show a feature's versions, or one version with its gates, figures and lineage."""
    from flows.factory import open_factory

    factory = open_factory(home)
    factory.feature(feature)
    if version is not None:
        _show_version(factory, feature, version, json)
        return
    current = factory.ledger.current_release()
    serving = factory.ledger.production(feature, current.base_release) if current else None
    versions = factory.catalog.versions(feature)
    if json:
        print_json([_version_json(one) for one in versions])
        return
    rows = [
        [
            one.version,
            "production" if serving and serving.version == one.version else "candidate",
            "passed" if one.passed else "failed",
            short(one.base_release),
            short(one.lineage.key),
            one.created[:19],
        ]
        for one in versions
    ]
    print_table(["version", "stage", "gates", "base release", "lineage", "created (UTC)"], rows, title=feature)


def _version_json(one: Any) -> dict[str, Any]:
    return {
        "version": one.version,
        "gates_passed": one.passed,
        "base_release": one.base_release,
        "lineage_key": one.lineage.key,
        "lineage": one.lineage.build,
        "evaluation": one.lineage.evaluation,
        "package": one.package,
        "evidence": one.evidence,
        "run_id": one.run_id,
        "created": one.created,
    }


def _show_version(factory: Any, feature: str, number: int, json: bool) -> None:
    one = factory.catalog.version(feature, number)
    report = factory.catalog.gate_report(one)
    if json:
        print_json(_version_json(one) | {"gate_report": loads(report.to_json())})
        return
    print_table(
        ["gate", "verdict", "detail"],
        [
            [gate.name, "passed" if gate.passed else ("warns" if gate.severity == "warn" else "failed"), gate.detail]
            for gate in report.gates
        ],
        title=f"{feature} {number}",
    )
    print_table(["figure", "value"], [[name, f"{value:.4g}"] for name, value in sorted(report.figures.items())])
    keys = one.lineage.build | one.lineage.evaluation
    print_table(["lineage", "key"], [[name, short(key)] for name, key in sorted(keys.items())])
    say(f"package {one.package}, MLflow run {one.run_id}")


@app.command()
def compare(
    feature: FeatureName,
    one: Annotated[int, typer.Argument(help="A version.")],
    other: Annotated[int, typer.Argument(help="Another version.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Compare two versions: figures side by side, and the lineage keys that differ."""
    from adapters.lineage import differences
    from flows.factory import open_factory

    factory = open_factory(home)
    left, right = (factory.catalog.version(feature, number) for number in (one, other))
    figures = [factory.catalog.gate_report(version).figures for version in (left, right)]
    names = sorted(figures[0].keys() | figures[1].keys())
    changed = differences(left.lineage.build | left.lineage.evaluation, right.lineage.build | right.lineage.evaluation)
    if json:
        print_json(
            {
                "figures": {name: [side.get(name) for side in figures] for name in names},
                "lineage": [{"key": key, "old": old, "new": new} for key, old, new in changed],
            }
        )
        return
    shown = [[name, *(f"{side[name]:.4g}" if name in side else "–" for side in figures)] for name in names]
    print_table(["figure", f"version {one}", f"version {other}"], shown, title=feature)
    print_table(["lineage", str(one), str(other)], [[key, short(old), short(new)] for key, old, new in changed])


def promote(
    feature: FeatureName,
    version: Annotated[int, typer.Argument(help="The version.")],
    reason: Reason,
    force: Annotated[bool, typer.Option(help="Overrule failed gates; they go into the ledger.")] = False,
    home: Home = None,
) -> None:
    """Put a version in production: ledger row, alias, package in the channel."""
    from flows.factory import open_factory
    from registry import promotion

    factory = open_factory(home)
    factory.feature(feature)
    with factory.workspace.lock():
        row = promotion.promote(factory.registry, feature, version, actor=factory.actor, reason=reason, force=force)
    say(f"{feature} {row.version} is in production (decision {row.number}, replaced {row.replaced or 'nothing'})")


def rollback(
    feature: FeatureName,
    reason: Reason,
    to: Annotated[int | None, typer.Option(help="An earlier version; default: the previous good one.")] = None,
    home: Home = None,
) -> None:
    """Go back to the previous good version; what is taken out is held until `release-hold`."""
    from flows.factory import open_factory
    from registry import promotion

    factory = open_factory(home)
    factory.feature(feature)
    with factory.workspace.lock():
        row = promotion.rollback(factory.registry, feature, actor=factory.actor, reason=reason, to=to)
    say(f"{feature} {row.version} is in production again (decision {row.number}); {row.replaced} is held")


def release_hold(feature: FeatureName, reason: Reason, home: Home = None) -> None:
    """Let what a rollback took out be promoted again."""
    from flows.factory import open_factory
    from registry import promotion

    factory = open_factory(home)
    factory.feature(feature)
    with factory.workspace.lock():
        rows = promotion.release_hold(factory.registry, feature, actor=factory.actor, reason=reason)
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
        factory.feature(feature)
    rows = factory.ledger.rows(feature)
    if json:
        print_json([row.model_dump(mode="json") for row in rows])
        return
    shown = [
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
