"""The catalog on the real MLflow: what was registered comes back whole, or not at all."""

import json
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from infra.canonical import digest
from infra.errors import FactoryError
from registry.catalog import Catalog, RunContent
from tests.registry.conftest import Place
from tests.registry.samples import make_lineage, make_report, release_lineage

matplotlib.use("Agg")
pytestmark = pytest.mark.servers


def test_a_run_keeps_params_metrics_curves_figures_and_files(place: Place) -> None:
    report = place.folder / "report.html"
    report.write_text("<p>report</p>")
    samples = place.folder / "samples"
    samples.mkdir()
    (samples / "samples.json").write_text("[]")
    content = RunContent(
        params={"training.rank": 16},
        metrics={"candidate": 0.31},
        series={"loss": [(1, 2.0), (2, 1.5)]},
        figures={"loss.png": Figure()},
        files={"": [report], "samples": [samples]},
    )
    run_id = place.registry.catalog.log_run("summarization", "first", content)

    import mlflow

    client = mlflow.tracking.MlflowClient(tracking_uri=place.uri)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params) == ("FINISHED", {"training.rank": "16"})
    assert run.data.metrics == {"candidate": 0.31, "loss": 1.5}
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [2.0, 1.5]
    files = {Path(file.path).name for file in client.list_artifacts(run_id)}
    assert files == {"loss.png", "report.html", "samples"}
    assert client.get_experiment_by_name("summarization") is not None


def test_a_version_comes_back_with_its_lineage_and_verdict(place: Place) -> None:
    release = place.release()
    lineage = make_lineage(release[0])
    first = place.version(release)
    second = place.version(release, "two", passed=False)
    catalog = place.registry.catalog
    assert catalog.versions("summarization") == [first, second]
    assert (first.version, first.lineage, first.passed) == (1, lineage, True)
    assert (second.version, second.passed) == (2, False)
    assert catalog.gate_report(first) == make_report()
    assert first.evidence == make_report().digest
    assert catalog.versions("writing") == []


def test_the_same_package_is_registered_once_and_takes_the_new_verdict(place: Place) -> None:
    release = place.release()
    first = place.version(release)
    again = place.version(release, passed=False)
    assert again.version == first.version
    assert (again.passed, place.registry.catalog.gate_report(again).passed) == (False, False)


def test_another_evaluation_replaces_the_verdict_only(place: Place) -> None:
    release = place.release()
    first = place.version(release)
    anew = make_lineage(release[0], evaluator="two")
    run = place.registry.catalog.log_run("summarization", "again", RunContent(metrics={"candidate": 0.5}))
    judged = place.registry.catalog.record_evaluation(first, run, anew, make_report(figure=0.5))
    assert (judged.version, judged.lineage, judged.package) == (1, anew, first.package)
    assert place.registry.catalog.figures(judged) == {"candidate": 0.5}


def test_a_damaged_package_is_not_handed_out(place: Place) -> None:
    version = place.version(place.release())
    folder = place.registry.catalog.package_folder(version)
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"system": "You lie."}))
    with pytest.raises(FactoryError, match="not the package registered"):
        place.registry.catalog.package_folder(version)


def test_a_local_package_is_not_copied(place: Place) -> None:
    folder = place.registry.catalog.package_folder(place.version(place.release()))
    assert folder.is_relative_to(place.folder / "files")


def test_a_changed_gate_report_is_not_believed(place: Place) -> None:
    version = place.version(place.release(), passed=False)
    (path,) = (place.folder / "files").rglob(f"{version.run_id}/artifacts/gates.json")
    path.write_text(make_report(passed=True).to_json())
    with pytest.raises(FactoryError, match="not the one that was registered"):
        place.registry.catalog.gate_report(version)


def test_changed_tags_are_named(place: Place) -> None:
    import mlflow

    place.version(place.release())
    client = mlflow.tracking.MlflowClient(tracking_uri=place.uri)
    client.set_model_version_tag("adapter-summarization", "1", "lineage_key", digest("other"))
    with pytest.raises(FactoryError, match="lineage and its key disagree"):
        place.registry.catalog.versions("summarization")


def test_versions_registered_by_hand_are_left_alone(place: Place) -> None:
    import mlflow

    version = place.version(place.release())
    client = mlflow.tracking.MlflowClient(tracking_uri=place.uri)
    client.create_model_version("adapter-summarization", (place.folder / "files").as_uri())
    assert place.registry.catalog.versions("summarization") == [version]


def test_a_release_is_registered_once_per_key_while_it_is_whole(place: Place) -> None:
    key, folder = place.release()
    catalog = place.registry.catalog
    run = catalog.log_run("base-release", "again", RunContent())
    (folder / "model.aimodel/main.mlirb").write_text("the same program, other names")
    assert catalog.register_release(run, folder, release_lineage(), make_report("base")).version == 1
    kept = catalog.release_folder(catalog.release(key))
    (kept / "release.json").unlink()
    with pytest.raises(FactoryError, match="not the base release that was registered"):
        catalog.release_folder(catalog.release(key))
    assert catalog.register_release(run, folder, release_lineage(), make_report("base")).version == 2


def test_a_release_judged_anew_keeps_its_version_and_folder(place: Place) -> None:
    key, folder = place.release(promote=False, passed=False)
    catalog = place.registry.catalog
    before = catalog.release(key)
    (folder / "release.json").write_text("other evidence")
    run = catalog.log_run("base-release", "again", RunContent())
    after = catalog.register_release(run, folder, release_lineage(), make_report("base"))
    assert (after.version, after.digest, before.passed, after.passed) == (1, before.digest, False, True)
    assert catalog.gate_report(after).passed


def test_an_adapter_needs_its_release_in_the_catalog(place: Place) -> None:
    with pytest.raises(FactoryError, match="is not registered"):
        place.version((digest("unknown"), place.release()[1]))


def test_an_mlflow_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(FactoryError, match=r"MLflow at http://127\.0\.0\.1:9") as caught:
        Catalog("http://127.0.0.1:9", tmp_path.as_uri(), tmp_path).releases()
    assert "\n" not in str(caught.value)


def test_nothing_is_said_on_the_terminal(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from registry.catalog import *; "
        "c = Catalog(f'sqlite:///{sys.argv[1]}/m.db', Path(sys.argv[1]).as_uri(), Path(sys.argv[1])); "
        "c.log_run('x', 'y', RunContent()); c.releases()"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
