"""A workspace with many features and versions, made fast but real: what `bench_registry` measures on.

How it comes about: recipes and records are files; ledger rows go through `Ledger.append_all`, a feature's at once;
packages through `Channel.publish`. Versions in MLflow, but for those that are promoted, are inserted into its
tables with the tags that `registry/versions.py` gives them: 50,000 calls of its interface would take an hour.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from adapters.device.package import build_package
from adapters.lineage import Lineage
from flows.factory import Factory, open_factory
from infra.canonical import digest, digest_folder
from registry.catalog import RunContent, adapter_model
from registry.channel import Publication
from registry.decisions import Decision
from registry.promotion import promote_release
from registry.versions import adapter_tags, verdict_tags
from tests.registry.samples import make_adapter, make_decision, make_facts, make_release, make_report

RECORDS = 12
RECIPE = """\
feature: {name}
description: A feature of the benchmark
data:
  corpus: [corpus/rows.jsonl]
  system: Answer.
  use_cases:
    main: {{prompt: "Do it: {{input}}", max_new_tokens: 32}}
evaluation:
  metric: rouge_l
"""


@dataclass(frozen=True)
class Place:
    """A folder to run `factory` in. The first feature, `first`, has two more versions that can be promoted."""

    folder: Path
    first: str
    promotable: tuple[int, int]


def make_place(folder: Path, features: int, versions: int, ledger_url: str = "") -> Place:
    """Features with `versions` promoted versions each, a tenth of them stale, in `folder`, which is made."""
    names = [f"f{number:04}" for number in range(features)]
    for name in names:
        _write_feature(folder / "features" / name)
    listed = ", ".join(f'"{folder / "features" / name}"' for name in names)
    settings = f'home = "{folder / "home"}"\nledger_url = "{ledger_url}"\nshipped_features = false\n'
    (folder / "factory.toml").write_text(settings + f"features = [{listed}]\n", "utf-8")
    with contextlib.chdir(folder):
        factory = open_factory()
    release = _release(factory, folder)
    adapter = make_adapter(folder / "adapter")
    tables: list[tuple[str, int, dict[str, str]]] = []
    publications: list[Publication] = []
    for number, name in enumerate(names):
        lineage = factory.lineage(name, release[0])
        decisions = [
            _promotion(name, version, lineage, versions, number % 10 == 9) for version in range(1, versions + 1)
        ]
        package = folder / "packages" / name
        package.mkdir(parents=True)
        shown = decisions[-1].lineage
        facts = make_facts(release[0], digest_folder(release[1]), Lineage(shown, {}), name)
        decisions[-1] = decisions[-1].model_copy(update={"package": build_package(adapter, package, facts).digest})
        row = factory.ledger.append_all(decisions)[-1]
        publications.append(Publication(row, row, package))
        tables += [(name, decision.version, _tags(decision)) for decision in decisions]
    factory.registry.channel.publish(publications, factory.ledger.heads())
    _insert(factory.tracking_uri, names, tables)
    promotable = tuple(_register(factory, folder, names[0], release, data) for data in ("one more", "another"))
    return Place(folder, names[0], (promotable[0], promotable[1]))


def _write_feature(folder: Path) -> None:
    (folder / "corpus").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=folder.name), "utf-8")
    rows = [
        {"id": f"r{n}", "use_case": "main", "input": f"{folder.name} asks {n}", "target": f"answer {n}",
         "source": "bench", "license": "CC0-1.0"}
        for n in range(RECORDS)
    ]  # fmt: skip
    (folder / "corpus/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _release(factory: Factory, folder: Path) -> tuple[str, Path]:
    """Register and promote a base release that is fresh: its lineage is what a release would have now."""
    _, files = make_release(folder / "release")
    lineage = factory.release_lineage_of(digest("base model"))
    run = factory.catalog.log_run("base-release", "base", RunContent())
    key = factory.catalog.register_release(run, files, lineage, make_report("base")).key
    promote_release(factory.registry, key, actor="bench", reason="bench")
    return key, files


def _promotion(name: str, version: int, lineage: Lineage, versions: int, stale: bool) -> Decision:
    """The promotion of one version: the last one has today's keys unless the feature is to be stale."""
    if version < versions or stale:
        lineage = Lineage(lineage.build | {"data": digest([name, version])}, lineage.evaluation)
    replaced = version - 1 if version > 1 else None
    return make_decision(name, "promote", version, lineage, replaced=replaced)


def _tags(decision: Decision) -> dict[str, str]:
    assert decision.evaluation is not None
    lineage = Lineage(decision.lineage, decision.evaluation)
    return adapter_tags(lineage, decision.package) | verdict_tags(make_report(decision.feature), "0" * 32, lineage)


def _insert(uri: str, names: Sequence[str], versions: Sequence[tuple[str, int, dict[str, str]]]) -> None:
    """Versions straight into MLflow's tables."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel

    models: list[dict[str, Any]] = [{"name": adapter_model(name)} for name in names]
    entries = [{"name": adapter_model(name), "version": version, "source": "bench"} for name, version, _ in versions]
    with sa.create_engine(uri).begin() as connection:
        connection.execute(sa.insert(SqlRegisteredModel), models)
        connection.execute(sa.insert(SqlModelVersion), entries)
        for start in range(0, len(versions), 5000):
            tags = [
                {"name": adapter_model(name), "version": version, "key": key, "value": value}
                for name, version, found in versions[start : start + 5000]
                for key, value in found.items()
            ]
            connection.execute(sa.insert(SqlModelVersionTag), tags)


def _register(factory: Factory, folder: Path, name: str, release: tuple[str, Path], data: str) -> int:
    """One more version by the way that runs take."""
    today = factory.lineage(name, release[0])
    lineage = Lineage(today.build | {"data": digest(data)}, today.evaluation)
    package = folder / "packages" / data.replace(" ", "-")
    package.mkdir()
    build_package(folder / "adapter", package, make_facts(release[0], digest_folder(release[1]), lineage, name))
    run = factory.catalog.log_run(name, "run", RunContent())
    return factory.catalog.register_adapter(name, run, package, lineage, make_report(name)).version
