"""Make a base release: fetch the base, palettize, recover, export, verify, register, make it current."""

from typing import Any

from prefect import flow, task

from adapters.evaluation.gates import GateReport
from adapters.palettization.assemble import read_manifest
from adapters.palettization.stages import release_stages
from flows.events import announced_base, changing, settle_base
from flows.factory import Factory, open_factory
from flows.outcome import Outcome
from flows.stops import noted, stop_of_base
from flows.tasks import HOUR, TASK, Stopwatch
from infra.store import Built
from infra.workspace import KnownBase
from registry import promotion
from registry.catalog import RunContent
from registry.decisions import BASE


@flow(name="release-base", validate_parameters=False)
def release_base(home: str | None, profile: str | None, source: str | None) -> dict[str, Any]:
    """Release the base from `source`, by default the base that was announced, is current, or else is in settings.

    Returns an `Outcome` as a mapping. A release that fails its gates is registered and rejected, and the former one
    stays current.
    """
    factory = open_factory(home, profile)
    with changing(factory, BASE, HOUR), noted(factory, BASE, lambda: stop_of_base(factory)):
        announced = announced_base(factory)
        outcome = _release(factory, source or (announced.source if announced else None))
        if announced is not None:
            settle_base(factory, announced)
    return outcome.to_json()


def _release(factory: Factory, source: str | None) -> Outcome:
    head = factory.ledger.head(BASE)
    seen = head.number if head else 0
    outcome = Outcome(BASE, "released")
    watch = Stopwatch(str(factory.workspace.root), BASE, outcome.seconds)
    base = fetch(factory, source)
    recipe = factory.release_recipe
    folder = factory.workspace.base_folder(base.digest)
    stages = release_stages(folder, base.digest, recipe, factory.workspace.store, factory.settings.compute)
    built = [watch.build(stage) for stage in stages][-1]
    manifest = read_manifest(built.path)
    report = GateReport.from_json((built.path / "gates.json").read_text("utf-8"))
    outcome.judged(report)
    outcome.figures = dict(manifest.figures)
    outcome.bits_per_weight = manifest.bits_per_weight
    outcome.version = register(factory, built, base, outcome, report)
    decide(factory, manifest.key, base, outcome, seen)
    return outcome


@task(task_run_name="fetch base", timeout_seconds=6 * HOUR, **TASK)
def fetch(factory: Factory, source: str | None) -> KnownBase:
    """The base model on this machine: what `source` holds now, or, without one, the base that is current."""
    known = None if source else factory.current_base()
    if known is not None and factory.workspace.base_folder(known.digest).is_dir():
        return known
    return factory.fetch(source or (known.source if known else factory.settings.base))


@task(task_run_name="register base", timeout_seconds=HOUR, **TASK)
def register(factory: Factory, built: Built, base: KnownBase, outcome: Outcome, report: GateReport) -> int:
    """Record the release in MLflow with its figures and report page, and register its folder as a version."""
    import tempfile
    from pathlib import Path

    from adapters.evaluation.release_report import write_release_report

    manifest = read_manifest(built.path)
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch)
        write_release_report(report, manifest.model_dump(exclude={"files"}), page, None)
        metrics = dict(manifest.figures) | {f"seconds.{name}": value for name, value in outcome.seconds.items()}
        content = RunContent(
            params={"source": base.source, "base_model": base.digest, "key": manifest.key},
            metrics=metrics,
            files={"": [page]},
        )
        run_id = factory.catalog.log_run("base-release", f"base {manifest.key[:8]}", content)
    return factory.catalog.register_release(run_id, built.path, factory.release_lineage_of(base.digest), report).version


@task(task_run_name="decide base", timeout_seconds=HOUR, **TASK)
def decide(factory: Factory, key: str, base: KnownBase, outcome: Outcome, seen: int) -> None:
    """Make the release current if its gates passed, else write down that they did not."""
    verdict = "passed its gates" if outcome.passed else f"failed {outcome.failed}"
    reason = f"{verdict}; base model from {base.source}"
    decision = promotion.promote_release if outcome.passed else promotion.reject_release
    with factory.workspace.lock("decisions", HOUR):
        decision(factory.registry, key, actor=factory.actor, reason=reason, seen=seen)
    outcome.state = "promoted" if outcome.passed else "rejected"
