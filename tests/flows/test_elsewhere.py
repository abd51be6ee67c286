"""The same flows on the embedded default and on PostgreSQL and S3: the same keys, digests and scores."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from infra.canonical import digest_file
from infra.store import Store
from tests.flows.line import factory, factory_json, make_project
from tests.servers import PUBLIC_BUCKET, postgres_server, s3_server

pytestmark = [pytest.mark.servers, pytest.mark.slow]

FEATURE = "rank"
# Two exports of one key may differ in bytes (docs/architecture.md); so may what carries their digest, or a time.
_MAY_DIFFER = {"aimodel", "evidence", "release", "package", "speed", "answers", "evaluation"}


def build(project: Path) -> dict[str, Any]:
    """Run one feature; what must be the same wherever it was run."""
    factory(project, "run", FEATURE, timeout=3000)
    factory(project, "export", FEATURE, "out")
    (row,) = factory_json(project, "history", FEATURE)
    figures = factory_json(project, "registry", "show", FEATURE, "1")["gate_report"]["figures"]
    store = Store(project / ".factory/store")
    stages = [entry for entry in store.entries() if entry.stage not in _MAY_DIFFER]
    found = {(entry.stage, entry.key): store.find(entry.stage, entry.key) for entry in stages}
    return {
        "decided": {name: row[name] for name in ("action", "version", "lineage", "evaluation", "base_release")},
        "keys": sorted(found),
        "data": {key: built and built.digest for key, built in found.items() if key[0] == "data"},
        "weights": digest_file(project / "out/adapter_model.safetensors"),
        "scores": {name: figures[name] for name in ("candidate", "baseline", "full_precision")},
    }


def test_embedded_and_servers_build_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    (tmp_path / "here").mkdir()
    here = build(make_project(tmp_path / "here"))
    for name in ("elsewhere", "postgres", "s3"):
        (tmp_path / name).mkdir()
    project = make_project(tmp_path / "elsewhere")
    with postgres_server(tmp_path / "postgres") as url, s3_server(tmp_path / "s3") as s3:
        with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            for name in ("ledger", "mlflow"):
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        boto3.Session().client("s3").create_bucket(Bucket=PUBLIC_BUCKET)
        server = url.removesuffix("postgres")
        with (project / "factory.toml").open("a") as settings:
            settings.write(f'ledger_url = "{server}ledger"\nmlflow_uri = "{server}mlflow"\n')
            settings.write(f'artifacts = "s3://{PUBLIC_BUCKET}/mlflow"\nchannel = "s3://{PUBLIC_BUCKET}/channel"\n')
        assert build(project) == here
        assert not list(project.glob(".factory/*.db")) and not list(project.glob(".factory/artifacts/*"))
        assert factory_json(project, "ledger", "verify")["whole"]
        held = {entry.name for entry in (project / ".factory/downloads").iterdir()}
        factory(project, "export", FEATURE, "again")
        assert {entry.name for entry in (project / ".factory/downloads").iterdir()} == held  # fetched once
