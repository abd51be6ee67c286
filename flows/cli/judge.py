"""`factory judge`: verdicts of a model, and of people, on a version's answers; nothing is decided by the command."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say

if TYPE_CHECKING:
    from adapters.evaluation.verdicts import Verdict
    from flows.factory import Factory
    from registry.versions import Version

Verdicts = Annotated[list[Path] | None, typer.Option(help="JSONL of verdicts, people's for example; repeatable.")]


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(judge)


def judge(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    version: Annotated[int | None, typer.Argument(help="A version; default: production.")] = None,
    grade: Annotated[bool, typer.Option(help="Grade the version's answers too, in five dimensions.")] = False,
    verdicts: Verdicts = None,
    output: Annotated[Path | None, typer.Option(help="Write all verdicts there, as JSONL.")] = None,
    items: Annotated[int, typer.Option(min=1, help="Held-out records of each use case, at most.")] = 20,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Compare a version's answers with the base's: by the model that settings name, by files of verdicts, or both."""
    from adapters.evaluation.verdicts import agreement, of_version, read_verdicts, summary, write_verdicts
    from flows.factory import open_factory
    from infra.errors import FactoryError

    factory = open_factory(home)
    factory.feature(feature)
    given: list[Verdict] = [verdict for path in verdicts or [] for verdict in read_verdicts(_there(path))]
    if not given and not factory.settings.judge_url:
        raise FactoryError("nobody judges; set judge_url in factory.toml, or name a file with --verdicts")
    chosen = factory.production_package(feature)[0] if version is None else factory.catalog.version(feature, version)
    unread = 0
    if factory.settings.judge_url:
        with factory.workspace.lock("evaluation"):
            found, unread = _asked(factory, feature, chosen, grade, items)
        given += found
    read, given = len(given), of_version(given, chosen.version)
    if output is not None:
        write_verdicts(output, given)
    figures, agreements = summary(given), agreement(given)
    if json:
        told = {"feature": feature, "version": chosen.version, "judges": figures, "unread": unread}
        print_json(told | {"other_versions": read - len(given), "agreement": agreements})
        return
    rows = [[name, figure, value] for name, own in figures.items() for figure, value in own.items()]
    print_table(["judge", "figure", "value"], rows, title=f"{feature} {chosen.version}")
    if agreements:
        shown = [
            [" and ".join(map(str, _names(row))), row["verdicts"], row["equal"], row.get("kappa")] for row in agreements
        ]
        print_table(["judges", "verdicts in common", "equal", "kappa"], shown)
    if unread:
        say(f"{unread} answers of the judge could not be read as verdicts")
    if read > len(given):
        say(f"{read - len(given)} verdicts are about other versions and do not count")


def _names(row: dict[str, object]) -> Sequence[object]:
    names = row["judges"]
    assert isinstance(names, list)
    return names


def _there(path: Path) -> Path:
    from infra.errors import FactoryError

    if not path.is_file():
        raise FactoryError(f"{path}: no such file of verdicts")
    return path


def _asked(factory: "Factory", feature: str, chosen: "Version", grade: bool, items: int) -> "tuple[list[Verdict], int]":
    """Verdicts of the settings' judge on a version and the base, and how many could not be read."""
    from flows.job import System
    from flows.judging import ask_model
    from flows.testing import baseline

    job = factory.job_on(feature, chosen.base_release)
    build = factory.workspace.store.build
    data = build(job.data()).path
    systems = {
        "candidate": System(job.release, factory.catalog.package_folder(chosen), chosen.package),
        "baseline": baseline(job),
    }
    answers = {name: build(job.answers(system, data)).path for name, system in systems.items()}
    return ask_model(factory, job, answers, data, items, grade)
