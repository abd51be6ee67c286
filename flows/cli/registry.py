"""What exists, what serves devices, and what did so when: `factory registry …`."""

from datetime import UTC, datetime
from json import loads
from typing import Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say, short, side_by_side
from infra.errors import FactoryError

app = typer.Typer(help="Browse features and versions.", no_args_is_help=True)
FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]
# What of a ledger row `registry at` tells.
_SHOWN_AT = {
    "version", "base_release", "number", "action", "time", "actor", "reason", "package", "evidence", "overruled",
    "lineage", "evaluation", "champion",
}  # fmt: skip


@app.command("list")
def list_features(json: AsJson = False, home: Home = None) -> None:
    """List features: what is in production, since when, by whom."""
    from flows.factory import open_factory
    from registry import decisions

    factory = open_factory(home)
    serving_rows, heads = factory.ledger.serving(), factory.ledger.heads()
    current = decisions.last_move(serving_rows.get(decisions.BASE, []))
    rows: list[dict[str, Any]] = []
    for name, is_run in factory.known(serving_rows).items():
        of_feature = serving_rows.get(name, [])
        serving = decisions.production(of_feature, current.base_release) if current else None
        rows.append(
            {
                "feature": name,
                "production": serving.version if serving else None,
                "since": serving.time if serving else None,
                "by": serving.actor if serving else None,
                "base_release": serving.base_release if serving else None,
                "decisions": heads[name].number if name in heads else 0,
                "run": is_run,
            }
        )
    if json:
        print_json(rows)
        return
    shown = [
        [
            _named(r["feature"], r["run"]),
            r["production"],
            (r["since"] or "–")[:19],
            r["by"],
            short(r["base_release"]),
            r["decisions"],
        ]
        for r in rows
    ]
    print_table(["feature", "production", "since (UTC)", "by", "base release", "decisions"], shown)


def _named(feature: str, is_run: bool) -> str:
    return feature if is_run else f"{feature} (not run any more)"


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
    factory.require_known(feature)
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
    print_table(["figure", f"version {one}", f"version {other}"], side_by_side(figures), title=feature)
    print_table(["lineage", str(one), str(other)], [[key, short(old), short(new)] for key, old, new in changed])


@app.command()
def at(
    time: Annotated[str, typer.Argument(help="ISO 8601, as 2026-11-01T12:00; UTC if it names no zone.")],
    feature: Annotated[str, typer.Argument(help="A feature's name, or `base`.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Tell what was in production at a time, for each base release, and on what evidence."""
    from flows.factory import open_factory
    from registry import decisions
    from registry.matrix import in_production, until

    factory = open_factory(home)
    if feature != decisions.BASE:
        factory.require_known(feature)
    moment = _moment(time)
    base_rows = until(factory.ledger.rows(decisions.BASE), moment)
    current = decisions.last_move(base_rows)
    rows = [current] if feature == decisions.BASE and current else until(factory.ledger.rows(feature), moment)
    found: list[dict[str, Any]] = []
    for row in in_production(rows):
        experiment = "base-release" if feature == decisions.BASE else feature
        report = factory.catalog.evidence(experiment, row.evidence) if row.evidence else None
        found.append(
            row.model_dump(mode="json", include=_SHOWN_AT)
            | {
                "current_base": current is not None and row.base_release == current.base_release,
                "gate_report": loads(report.to_json()) if report else None,
            }
        )
    if json:
        print_json({"feature": feature, "time": moment, "production": found})
        return
    if not found:
        say(f"{feature}: nothing was in production at {moment[:19]} UTC")
    for one in found:
        now = ", then current" if one["current_base"] else ""
        say(f"{feature} {one['version']} for base release {short(one['base_release'])}{now}")
        say(f"  since {one['time'][:19]} UTC, decision {one['number']} ({one['action']}) by {one['actor']}")
        say(f"  because: {one['reason']}")
        say(f"  package {one['package']}, evidence {one['evidence']}")
        if one["overruled"]:
            say(f"  overruled: {', '.join(one['overruled'])}")
        for gate in one["gate_report"]["gates"] if one["gate_report"] else []:
            say(f"  gate {gate['name']}: {'passed' if gate['passed'] else 'failed'}, {gate['detail']}")
        if not one["gate_report"]:
            say("  the gate report itself is no longer in MLflow")


def _moment(text: str) -> str:
    """A time as ledger rows have it."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise FactoryError(f"{text!r} is no time; write it as 2026-11-01T12:00 or 2026-11-01T12:00+02:00") from None
    in_utc = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return in_utc.isoformat(timespec="microseconds")


@app.command("matrix")
def show_matrix(json: AsJson = False, home: Home = None) -> None:
    """Features by base releases: the version that serves each, and the holes."""
    from flows.factory import open_factory
    from registry.matrix import matrix

    factory = open_factory(home)
    serving = factory.ledger.serving()
    known = factory.known(serving)
    found = matrix(serving, list(known), factory.ledger.rollouts())
    if json:
        print_json(found.to_json() | {"not_run": [name for name, is_run in known.items() if not is_run]})
        return
    columns = ["feature", *(f"{short(release.base_release)} ({release.version})" for release in found.releases)]
    rows: list[list[object]] = []
    staged = {(row.feature, row.base_release): f", {row.version} for {row.share:.0%}" for row in found.rollouts}
    for feature, served in found.cells.items():
        shown: list[object] = []
        for release in found.releases:
            cell, beside = served.get(release.base_release), staged.get((feature, release.base_release))
            shown.append("hole" if cell is None else f"{cell.version}{beside}" if beside else cell.version)
        rows.append([_named(feature, known[feature]), *shown])
    print_table(columns, rows, title="base releases, the current one last")
    say(f"{len(found.holes)} holes")
