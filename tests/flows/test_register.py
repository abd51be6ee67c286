"""What a run leaves in MLflow beside its version."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from adapters.evaluation.gates import GateReport
from flows.factory import Factory
from flows.retrain import register
from infra.store import Built
from tests.flows.test_job import job

NOTHING = {"documents": 0, "acceptance_rate": None, "queued": 0, "candidates": 0, "reasons": {}}
REPORT = NOTHING | {"use_cases": {}, "teachers": {}, "diversity": {}, "scorer": {"auc": None}}


def test_data_docs_of_both_checks_are_logged(tmp_path: Path) -> None:
    logged: list[Any] = []
    catalog = SimpleNamespace(
        log_run=lambda feature, name, content, key: logged.append(content.files), register_adapter=lambda *_: None
    )
    factory = SimpleNamespace(
        catalog=catalog, data=SimpleNamespace(versions=lambda _: [SimpleNamespace(md5="m", message="")])
    )
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    evidence = [tmp_path / name for name in ("trained_on.json", "data.html", "data/data_docs")]
    evaluation = Built(tmp_path, "key", "digest", 0.0, False)

    def files() -> dict[str, list[Path]]:
        reports = {"synthesis": tmp_path / "report.json"}
        register.fn(
            cast(Factory, factory),
            job(),
            tmp_path,
            GateReport("mail", [], {}),
            evaluation,
            reports,
            evidence,
            {},
            None,
            None,
        )
        return cast(dict[str, list[Path]], logged.pop())

    assert "data_docs_synthetic" not in files(), "nothing was accepted"
    (tmp_path / "data_docs").mkdir()
    assert files()["data_docs_synthetic"] == [tmp_path / "data_docs"]
    assert files()["data_docs"] == [tmp_path / "data/data_docs"]
