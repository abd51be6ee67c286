"""Draw a base model's trade-off between bits per weight and quality, before a target is chosen."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task

from adapters.palettization.stages import exploration_stages
from flows.factory import Factory, open_factory
from flows.release_base import fetch
from flows.tasks import HOUR, TASK, Stopwatch
from infra.store import Built
from registry.catalog import RunContent

PAGE = "tradeoff.html"


@flow(name="explore-base", validate_parameters=False)
def explore_base(home: str | None, profile: str | None, source: str | None) -> dict[str, Any]:
    """Returns the content of `tradeoff.json`, and under `page` the path of the page in MLflow's artifacts."""
    factory = open_factory(home, profile)
    watch = Stopwatch(str(factory.workspace.root), "base", {})
    base = fetch(factory, source)
    folder = factory.workspace.base_folder(base.digest)
    stages = exploration_stages(
        folder, base.digest, factory.release_recipe, factory.workspace.store, factory.settings.compute
    )
    built = [watch.build(stage) for stage in stages][-1]
    return record(factory, built, base.digest)


@task(task_run_name="record trade-off", timeout_seconds=HOUR, **TASK)
def record(factory: Factory, built: Built, base_digest: str) -> dict[str, Any]:
    """Log points, pictures and page as a run in MLflow."""
    from adapters.evaluation.tradeoff_report import write_tradeoff_report
    from adapters.palettization.tradeoff import TRADEOFF

    tradeoff: dict[str, Any] = json.loads((built.path / TRADEOFF).read_text("utf-8"))
    row = factory.ledger.current_release()
    current: Mapping[str, float] = {}
    if row is not None and row.lineage["base_model"] == base_digest:
        current = factory.catalog.gate_report(factory.catalog.release(row.base_release)).figures
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch)
        write_tradeoff_report(tradeoff, current, page)
        series = {
            name: [(round(1000 * point["target"]), point[name]) for point in tradeoff["points"]]
            for name in ("kl", "perplexity", "top1", "mb")
        }
        content = RunContent(
            params={"base_model": base_digest}, series=series, files={"": [page, built.path / TRADEOFF]}
        )
        run_id = factory.catalog.log_run("base-exploration", f"base {base_digest[:8]}", content)
    return tradeoff | {"page": str(factory.catalog.run_file(run_id, PAGE))}
