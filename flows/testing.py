"""What tests of a version share, in a run and on demand: the systems, the figures of the adapter itself, the stages."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from adapters.device.package import verify_package
from adapters.evaluation.suites.run import compared
from flows.factory import Factory
from flows.job import Job, System
from flows.judging import verdict_figures
from infra.store import Built, Stage
from registry import decisions

Build = Callable[[Stage], Built]


def baseline(job: Job) -> System:
    """What a device runs when no feature adapter is loaded."""
    return System(job.release, job.release.folder / "recovery", "recovery adapter")


def champion(factory: Factory, feature: str, base_release: str, candidate: int | None) -> dict[str, System]:
    """The production version as one more system to test, unless there is none or it is the candidate itself."""
    serving = decisions.champion(factory.ledger.rows(feature), base_release, candidate)
    if serving is None:
        return {}
    version = factory.catalog.version(feature, serving.version)
    release = factory.release(version.base_release)
    return {"production": System(release, factory.catalog.package_folder(version), version.package)}


def evaluate(
    factory: Factory,
    job: Job,
    package: Path,
    rivals: Mapping[str, System],
    data: Path,
    reports: Mapping[str, Path],
    build: Build,
) -> Built:
    """Answer, measure and judge a package on the held-out records of `data`, beside the systems in `rivals`."""
    metadata = verify_package(package)
    candidate = System(job.release, package, metadata.digest)
    systems = {
        "full_precision": System(job.release, None, "full precision"),
        "baseline": baseline(job),
        "candidate": candidate,
        **rivals,
    }
    answers = {name: build(job.answers(system, data)) for name, system in systems.items()}
    folders = {name: (built.key, built.path) for name, built in answers.items()}
    measured = {"adapter_mb": metadata.megabytes, **_measured(factory, job, candidate, data, build)}
    measured |= verdict_figures(factory, job, candidate, folders, data, build)
    return build(job.evaluation(folders, measured, data, reports))


def _measured(factory: Factory, job: Job, candidate: System, data: Path, build: Build) -> dict[str, float]:
    """Figures that the recipe asks for beside its items: of its suites, and of speed if a gate needs it."""
    section = job.recipe.evaluation
    figures: dict[str, float] = {}
    if any(rule.metric == "seconds_ratio" for rule in section.gates.values()):
        speed = build(job.speed(candidate, data))
        figures |= json.loads((speed.path / "speed.json").read_text("utf-8"))
    for name, files in factory.suite_files(job.recipe.feature).items():
        items = section.suites[name].items
        found = suite_figures(job, name, files, items, candidate, build)
        figures |= {f"{name}.{figure}": value for figure, value in found.items()}
    return figures


def suite_figures(
    job: Job, name: str, files: Mapping[str, Path], items: int, candidate: System, build: Build
) -> dict[str, float]:
    """What a suite finds of a system and of the base, and how they differ."""
    ours, base = (build(job.suite(name, files, items, system)) for system in (candidate, baseline(job)))
    return compared(ours.path, base.path)
