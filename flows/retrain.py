"""Rebuild one feature's adapter: data, synthesis, training, tests, registration, promotion.

A version that only needs another evaluation goes through the same flow, without synthesis and training.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, task

from adapters.data.expectations import DATA_DOCS
from adapters.device.package import verify_package
from adapters.evaluation.gates import GateReport
from adapters.palettization.assemble import read_manifest
from adapters.synthesis.picture import acceptance_picture
from adapters.synthesis.synthesize import acceptance_figures
from flows.curves import followed, points, run_name
from flows.events import changing, part_of
from flows.factory import Factory, open_factory
from flows.job import TRAINED_ON, Job
from flows.outcome import Outcome
from flows.stops import noted, stop_of
from flows.tasks import HOUR, TASK, Stopwatch
from flows.testing import champion, evaluate
from infra.dvc_data import RECORDS
from infra.store import Built
from registry import promotion
from registry.catalog import RunContent
from registry.plan import FeaturePlan, plan_feature
from registry.versions import Version


@flow(name="retrain", flow_run_name="retrain {feature}", validate_parameters=False)
def retrain(home: str | None, profile: str | None, feature: str, promote: bool) -> dict[str, Any]:
    """Bring one feature to what its inputs say now; returns an `Outcome` as a mapping.

    A second run of the same feature waits for the first, and then finds nothing to do.
    """
    factory = open_factory(home, profile)
    with changing(factory, part_of(feature), HOUR, [feature]):
        job = factory.job(feature)
        rows = factory.ledger.rows(feature)
        plan = plan_feature(feature, job.lineage, rows, job.recipe.promotion.approval_days)
        with noted(factory, feature, lambda: stop_of(plan)):
            outcome = _follow(factory, job, plan, promote, rows[-1].number if rows else 0)
    return outcome.to_json()


def _follow(factory: Factory, job: Job, plan: FeaturePlan, promote: bool, seen: int) -> Outcome:
    """Do what the plan says; decide, unless somebody decided otherwise since decision `seen`."""
    outcome = Outcome(plan.feature, plan.state, plan.version)
    waits = plan.state == "awaiting promotion"
    if waits:
        assert plan.version is not None
        outcome.judged(factory.catalog.gate_report(factory.catalog.version(plan.feature, plan.version)))
    elif plan.state in ("stale", "needs evaluation"):
        outcome.version = build_and_test(factory, job, plan, outcome).version
    if outcome.passed is False and not waits:
        decide_rejection(factory, outcome, seen)
    elif promote and (waits or outcome.passed):
        decide_promotion(factory, job, outcome, seen)
    elif outcome.passed:
        decide_acceptance(factory, outcome, seen)
    return outcome


def build_and_test(factory: Factory, job: Job, plan: FeaturePlan, outcome: Outcome) -> Version:
    """The stages in order, each under its key, then the registration of what they gave."""
    watch = Stopwatch(str(factory.workspace.root), plan.feature, outcome.seconds)
    data = watch.build(job.data())
    version_data(factory, job, data)
    reports = {"data": data.path / "report.json"}
    trained: str | None = None
    if plan.state == "needs evaluation":
        assert plan.version is not None
        version = factory.catalog.version(plan.feature, plan.version)
        package = factory.catalog.package_folder(version)
        trained_on = factory.catalog.run_file(version.run_id, TRAINED_ON)
    else:
        synthesis = watch.build(job.synthesis(data.path)) if job.recipe.synthesis else None
        follow = partial(followed, factory, job)
        training = watch.build(job.training(data.path, synthesis.path if synthesis else None, follow))
        package = watch.build(job.package(training.path)).path
        trained, trained_on = training.key, training.path / TRAINED_ON
        reports |= {"training": training.path / "training.json"}
        reports |= {"synthesis": synthesis.path / "report.json"} if synthesis else {}
    metadata = verify_package(package)
    rivals = champion(factory, plan.feature, plan.base_release, plan.version)
    evaluation = evaluate(factory, job, package, rivals, data.path, reports, watch.build)
    report = GateReport.from_json((evaluation.path / "gates.json").read_text("utf-8"))
    outcome.judged(report)
    outcome.adapter_mb = metadata.megabytes
    outcome.bits_per_weight = read_manifest(job.release.folder).bits_per_weight
    outcome.report = str(evaluation.path / "report.html")
    against = rivals["production"].identity if "production" in rivals else None
    evidence = [trained_on, data.path / "data.html", data.path / DATA_DOCS]
    seconds = outcome.seconds
    return register(factory, job, package, report, evaluation, reports, evidence, seconds, against, trained)


@task(task_run_name="dataset {job.recipe.feature}", timeout_seconds=HOUR, **TASK)
def version_data(factory: Factory, job: Job, data: Built) -> None:
    """Keep the records that this run saw as a DVC version of the feature's data."""
    from infra.canonical import canonical_json

    rows = sorted(job.records, key=lambda record: record.id)
    lines = b"".join(canonical_json(record.model_dump()) + b"\n" for record in rows)
    feature = job.recipe.feature
    files = {RECORDS: lines} | {name: data.path / name for name in ("quarantine.jsonl", "removed.jsonl")}
    factory.data.snapshot(feature, files, f"Records of a run of {feature}")


@task(task_run_name="register {job.recipe.feature}", timeout_seconds=HOUR, **TASK)
def register(
    factory: Factory,
    job: Job,
    package: Path,
    report: GateReport,
    evaluation: Built,
    reports: dict[str, Path],
    evidence: list[Path],
    seconds: dict[str, float],
    against: str | None,
    trained: str | None,
) -> Version:
    """Record the run in MLflow and register the package, tested against the package `against`, as a version.

    The run is the one that the training with the key `trained` told its steps to.
    """
    recipe = job.recipe
    params: dict[str, object] = {"base_release": job.release.key, "base_model": job.release.base_digest}
    for name, section in (("training", recipe.training), ("synthesis", recipe.synthesis)):
        params |= {f"{name}.{key}": value for key, value in (section.model_dump() if section else {}).items()}
    params["evaluation.metric"] = recipe.evaluation.metric
    params["data.version"] = factory.data.versions(recipe.feature)[-1].md5
    metrics = report.metrics | {f"seconds.{name}": value for name, value in seconds.items()}
    series: dict[str, list[tuple[int, float]]] = {}
    if "training" in reports:
        for step in json.loads(reports["training"].read_text("utf-8"))["steps"]:
            for curve, value in points(step).items():
                series.setdefault(curve, []).append((step["step"], value))
    page = [evaluation.path / name for name in ("report.html", "scores.json", "samples.jsonl")]
    trained_on, data_page, data_docs = evidence
    files = {"": [*page, trained_on, data_page], "figures": [evaluation.path / "figures"], DATA_DOCS: [data_docs]}
    files |= {f"reports/{name}": [path] for name, path in reports.items()}
    pictures = {}
    if "synthesis" in reports:
        docs = reports["synthesis"].parent / DATA_DOCS
        files |= {f"{DATA_DOCS}_synthetic": [docs]} if docs.is_dir() else {}  # nothing accepted, nothing checked
        acceptance = json.loads(reports["synthesis"].read_text("utf-8"))
        metrics |= acceptance_figures(acceptance)
        pictures = {"synthesis.png": acceptance_picture(acceptance)}
    content = RunContent(params=params, metrics=metrics, series=series, figures=pictures, files=files)
    run_id = factory.catalog.log_run(recipe.feature, run_name(job), content, trained)
    return factory.catalog.register_adapter(recipe.feature, run_id, package, job.lineage, report, against)


@task(task_run_name="promote {outcome.subject}", timeout_seconds=HOUR, **TASK)
def decide_promotion(factory: Factory, job: Job, outcome: Outcome, seen: int) -> None:
    """Promote what passed (ledger row, alias, package in the channel), or ask for it if a second person must agree."""
    assert outcome.version is not None
    with factory.workspace.lock("decisions", HOUR):
        row = promotion.promote(
            factory.registry,
            outcome.subject,
            outcome.version,
            actor=factory.actor,
            reason=f"passed its gates in a run ({outcome.state})",
            approval_days=job.recipe.promotion.approval_days,
            seen=seen,
        )
    outcome.state = "requested" if row.action == "request" else "promoted"


@task(task_run_name="accept {outcome.subject}", timeout_seconds=HOUR, **TASK)
def decide_acceptance(factory: Factory, outcome: Outcome, seen: int) -> None:
    """Write down that the version passed and waits for somebody to promote it."""
    assert outcome.version is not None
    reason = f"passed its gates in a run without promotion ({outcome.state})"
    who = {"actor": factory.actor, "reason": reason}
    with factory.workspace.lock("decisions", HOUR):
        promotion.accept(factory.registry, outcome.subject, outcome.version, **who, seen=seen)


@task(task_run_name="reject {outcome.subject}", timeout_seconds=HOUR, **TASK)
def decide_rejection(factory: Factory, outcome: Outcome, seen: int) -> None:
    """Write down that the version failed, so that it is not built again."""
    assert outcome.version is not None
    reason = f"failed {outcome.failed}"
    who = {"actor": factory.actor, "reason": reason}
    with factory.workspace.lock("decisions", HOUR):
        promotion.reject(factory.registry, outcome.subject, outcome.version, **who, seen=seen)
    outcome.state = "rejected"
