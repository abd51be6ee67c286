"""`factory evaluate`: test a version on demand, on its held-out records or with suites; nothing is decided by it."""

from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say

if TYPE_CHECKING:
    from flows.factory import Factory
    from registry.versions import Version

Suites = Annotated[
    list[str] | None, typer.Option("--suite", help="safety, injections, sensitive, ifeval, perplexity; repeatable.")
]
Files = Annotated[list[str] | None, typer.Option("--file", help="NAME=PATH: a file that a suite needs; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(evaluate)


def evaluate(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    version: Annotated[int | None, typer.Argument(help="A version; default: production.")] = None,
    suite: Suites = None,
    file: Files = None,
    items: Annotated[int, typer.Option(min=1, help="Questions from each file of a suite, at most.")] = 100,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Test a version again: its held-out records, or suites with prompts from files. Nothing is recorded or decided."""
    from flows.factory import open_factory

    factory = open_factory(home)
    factory.feature(feature)
    with factory.workspace.lock("evaluation"):
        if version is None:
            chosen, _ = factory.production_package(feature)
        else:
            chosen = factory.catalog.version(feature, version)
        if suite:
            _suites(factory, feature, chosen, suite, _named_files(file or []), items, json)
        else:
            _held_out(factory, feature, chosen, json)


def _named_files(given: list[str]) -> dict[str, Path]:
    from infra.errors import FactoryError

    files = {}
    for one in given:
        name, separator, path = one.partition("=")
        if not separator or not path:
            raise FactoryError(f"--file {one!r}: write it as NAME=PATH, as in adversarial=prompts.jsonl")
        files[name] = Path(path)
    return files


def _suites(
    factory: "Factory",
    feature: str,
    version: "Version",
    names: list[str],
    files: dict[str, Path],
    items: int,
    json: bool,
) -> None:
    """Each suite for the version and for the base, side by side. Its files: the options', else the recipe's."""
    from adapters.evaluation.suites.run import SUITES
    from flows.job import System
    from flows.testing import suite_figures
    from infra.errors import FactoryError

    job = factory.job_on(feature, version.base_release)
    system = System(job.release, factory.catalog.package_folder(version), version.package)
    known = factory.suite_files(feature)
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise FactoryError(f"no suite {unknown[0]!r}; there are: {', '.join(SUITES)}")
    stray = sorted(files.keys() - {need for name in names for need in SUITES[name].needs})
    if stray:
        raise FactoryError(f"--file {stray[0]}=…: none of the suites {', '.join(names)} needs a file of this name")
    found = {}
    for name in names:
        own = {need: path for need, path in files.items() if need in SUITES[name].needs}
        chosen = known.get(name, {}) | own
        found[name] = suite_figures(job, name, chosen, items, system, factory.workspace.store.build)
    if json:
        print_json({"feature": feature, "version": version.version, "items": items, "suites": found})
        return
    for name, figures in found.items():
        rows = [
            [figure, value, figures.get(f"{figure}_base")]
            for figure, value in figures.items()
            if not figure.endswith("_base")
        ]
        print_table([name, f"version {version.version}", "base"], rows)


def _held_out(factory: "Factory", feature: str, version: "Version", json: bool) -> None:
    """The feature's own test, as a run would do it."""
    from adapters.evaluation.gates import GateReport
    from flows.testing import champion, evaluate

    job = factory.job_on(feature, version.base_release)
    build = factory.workspace.store.build
    data = build(job.data())
    rivals = champion(factory, feature, version.base_release, version.version)
    package = factory.catalog.package_folder(version)
    tested = evaluate(factory, job, package, rivals, data.path, {"data": data.path / "report.json"}, build)
    report = GateReport.from_json((tested.path / "gates.json").read_text("utf-8"))
    page = str(tested.path / "report.html")
    if json:
        shown: dict[str, Any] = {"feature": feature, "version": version.version, "page": page}
        print_json(shown | {"gate_report": loads(report.to_json())})
        return
    verdicts = {True: "passed", False: "failed"}
    rows = [
        [gate.name, "warns" if gate in report.warnings else verdicts[gate.passed], gate.detail] for gate in report.gates
    ]
    print_table(["gate", "verdict", "detail"], rows, title=f"{feature} {version.version}")
    say(page)
