"""The whole line on a tiny random base, by the command that users run: from a change to production and back."""

import contextlib
import json
from pathlib import Path

import psutil
import pytest

from tests.flows.line import factory, factory_json, kill_run, make_project, read_rows, write_rows
from tests.tiny import make_tiny_base

pytestmark = pytest.mark.servers
FEATURES = ["brief", "edit", "rank"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first run was killed in its middle and whose second went to the end.

    The tests of this module go on from it in their order.
    """
    folder = make_project(tmp_path_factory.mktemp("project"))
    plan = factory_json(folder, "plan")
    assert plan["base"]["state"] == "missing"
    kill_run(folder, after="edit: training")
    ran = factory_json(folder, "run")
    assert [(one["subject"], one["state"]) for one in ran["outcomes"]] == [("edit", "promoted"), ("rank", "promoted")]
    # What the killed run had finished is not done again, what it had not is.
    seconds = ran["outcomes"][0]["seconds"]
    assert (seconds["data"], seconds["training"]) == (0.0, 0.0)
    assert seconds["answers"] > 0
    assert servers_of(folder) == [], "the killed run's server was left behind"
    return folder


def servers_of(folder: Path) -> list[int]:
    """Processes that run Prefect's server for this project."""
    home = str(folder / ".factory/prefect")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "prefect server start" in " ".join(process.cmdline()) and process.environ().get("PREFECT_HOME") == home:
                found.append(process.pid)
    return found


def states(folder: Path) -> dict[str, str]:
    """Each feature's state by the plan."""
    return {one["feature"]: one["state"] for one in factory_json(folder, "plan")["features"]}


def test_everything_is_fresh_after_a_run(project: Path) -> None:
    assert states(project) == dict.fromkeys(FEATURES, "fresh")
    again = factory_json(project, "run")
    assert again["outcomes"] == []
    assert again["seconds"] < 10


def test_an_auditor_is_answered(project: Path) -> None:
    """The ledger is whole, every cell of the matrix is served, and what was in production when is on record."""
    audit = factory_json(project, "ledger", "verify")
    assert (audit["whole"], audit["rows"]) == (True, {"base": 1, "brief": 1, "edit": 1, "rank": 1})
    matrix = factory_json(project, "registry", "matrix")
    assert matrix["holes"] == []
    assert [list(one["versions"].values()) for one in matrix["features"]] == [[1], [1], [1]]
    (promoted,) = factory_json(project, "history", "brief")
    (served,) = factory_json(project, "registry", "at", promoted["time"], "brief")["production"]
    assert (served["version"], served["current_base"], served["evidence"]) == (1, True, promoted["evidence"])
    assert served["gate_report"]["digest"] == promoted["evidence"]
    assert factory_json(project, "registry", "at", "2020-01-01T12:00", "brief")["production"] == []
    factory(project, "registry", "at", "yesterday", "brief", code=2)


def test_a_decision_that_was_not_carried_out_is_finished_by_the_next_run(project: Path) -> None:
    timestamp = project / ".factory/channel/metadata/timestamp.json"
    before = factory_json(project, "channel", "show")
    timestamp.unlink()
    dry = factory_json(project, "promote", "brief", "1", "--reason", "look", "--dry-run")
    undone = [f"{subject} 1: promote" for subject in ("base", *FEATURES)]
    assert (dry["would_write"], dry["stands"], dry["would_repair"]) == (None, 1, undone)
    assert not timestamp.exists()
    assert factory_json(project, "run")["outcomes"] == []
    after = factory_json(project, "channel", "show")
    assert (after["pointers"], after["heads"]) == (before["pointers"], before["heads"])
    assert [one["feature"] for one in after["pointers"]] == ["base", *FEATURES]


def test_production_answers(project: Path) -> None:
    """`generate`, `export` and MLflow's own loader all serve what was promoted."""
    answered = json.loads(factory(project, "generate", "brief", "--json", text="please call today").stdout)
    assert answered["version"] == 1
    factory(project, "export", "brief", "out")
    metadata = json.loads((project / "out/metadata.json").read_text("utf-8"))
    assert (metadata["feature"], metadata["version"]) == ("brief", 1)

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project / '.factory/mlflow.db'}")
    answers = mlflow.pyfunc.load_model("models:/adapter-brief@production").predict(["please call today"])
    assert list(answers) == [answered["answer"]]


def test_the_run_of_a_version_is_the_one_that_its_training_told_its_steps_to(project: Path) -> None:
    """The training of `edit` was followed by the run that was killed; the next one registered what came of it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{project / '.factory/mlflow.db'}")
    for feature in ("edit", "rank"):
        (run,) = client.search_runs([client.get_experiment_by_name(feature).experiment_id])
        shown = factory_json(project, "registry", "show", feature, "1")
        assert run.info.run_id == shown["run_id"] and run.info.status == "FINISHED"
        report = client.download_artifacts(run.info.run_id, "reports/training/training.json")
        steps = json.loads(Path(report).read_text("utf-8"))["steps"]
        points = {
            name: client.get_metric_history(run.info.run_id, name)
            for name in ("training.loss", "training.tokens_per_second", "training.megabytes")
        }
        for curve in points.values():
            assert [point.step for point in curve] == [step["step"] for step in steps]
        (logged,) = client.get_metric_history(run.info.run_id, "seconds.training")
        assert points["training.loss"][0].timestamp < logged.timestamp, "told before the version was registered"


def test_what_became_of_candidates_is_in_mlflow(project: Path) -> None:
    """Acceptance by use case and teacher and each filter's share are figures of the version's run, and a picture."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project / '.factory/mlflow.db'}")
    run = client.get_run(client.get_model_version_by_alias("adapter-brief", "production").run_id)
    assert {"synthesis.acceptance", "synthesis.acceptance/main", "synthesis.acceptance/base"} <= run.data.metrics.keys()
    filters = [name for name in run.data.metrics if name.startswith("synthesis.rejected/")]
    assert filters, "a random model answers nonsense, which no filter lets pass"
    assert "synthesis.png" in [one.path for one in client.list_artifacts(run.info.run_id)]


def test_a_version_is_tested_on_demand(project: Path) -> None:
    """Nothing is recorded by it; what was answered is not answered again."""
    tested = factory_json(project, "evaluate", "brief")
    registered = factory_json(project, "registry", "show", "brief", "1")["gate_report"]
    assert tested["gate_report"]["gates"] == registered["gates"]
    assert {"speed", "better_than_trivial", "size_budget_mb"} <= {gate["name"] for gate in registered["gates"]}
    assert Path(tested["page"]).is_file()

    rows = [{"id": f"q{number}", "prompt": f"How do I stop train {number}?", "label": "safe"} for number in range(5)]
    for name in ("adversarial", "overrefusal"):
        (project / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    files = [f"--file={name}={name}.jsonl" for name in ("adversarial", "overrefusal")]
    figures = factory_json(project, "evaluate", "brief", "1", "--suite=safety", *files)["suites"]["safety"]
    assert (figures["violations"], figures["false_refusals"], figures["passed_change"]) == (1.0, 0.0, 0.0)
    assert (
        "needs the file overrefusal" in factory(project, "evaluate", "brief", "--suite=safety", files[0], code=2).stderr
    )
    assert [one["action"] for one in factory_json(project, "history", "brief")] == ["promote"]


def test_a_changed_training_record_makes_one_feature_stale(project: Path) -> None:
    rows = read_rows(project / "features/edit")
    held_out = {json.loads(line)["id"] for line in _stage_file(project, "edit", "held_out.jsonl")}
    changed = next(row for row in rows if row["id"] not in held_out)
    changed["target"] += " soon"
    write_rows(project / "features/edit", rows)
    assert states(project) == {"brief": "fresh", "edit": "stale", "rank": "fresh"}
    reasons = factory_json(project, "plan", "edit")["features"][0]["reasons"]
    assert [reason["key"] for reason in reasons] == ["data"]

    ran = factory_json(project, "run")
    assert [(one["subject"], one["version"], one["state"]) for one in ran["outcomes"]] == [("edit", 2, "promoted")]
    assert "training" in ran["outcomes"][0]["seconds"]


def test_a_changed_held_out_record_tests_the_same_version_again(project: Path) -> None:
    rows = read_rows(project / "features/rank")
    held_out = {json.loads(line)["id"] for line in _stage_file(project, "rank", "held_out.jsonl")}
    changed = next(row for row in rows if row["id"] in held_out)
    changed["target"] = "1" if changed["target"] == "2" else "2"
    write_rows(project / "features/rank", rows)
    assert states(project)["rank"] == "needs evaluation"
    (outcome,) = factory_json(project, "run")["outcomes"]
    assert (outcome["subject"], outcome["version"]) == ("rank", 1)
    assert "training" not in outcome["seconds"]
    assert states(project)["rank"] == "fresh"


def test_a_run_asks_and_another_person_approves(project: Path) -> None:
    recipe = project / "features/rank/recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("rank: 4", "rank: 6") + "promotion: {approval: required}\n", "utf-8")
    (outcome,) = factory_json(project, "run", "rank")["outcomes"]
    assert (outcome["state"], outcome["version"]) == ("requested", 2)
    (plan,) = factory_json(project, "plan", "rank")["features"]
    assert (plan["state"], plan["production"], plan["request"]) == ("awaiting promotion", 1, 3)
    assert "somebody else must approve it" in plan["blocked_by"]
    assert factory_json(project, "run", "rank")["outcomes"] == []
    factory(project, "approve", "rank", "2", "--reason", "my own", code=1)
    assert factory_json(project, "approve", "rank", "2", "--reason", "read it", actor="ben")["actor"] == "ben"
    assert states(project)["rank"] == "fresh"


def test_a_rollback_is_not_undone_by_the_next_run(project: Path) -> None:
    back = factory_json(project, "rollback", "edit", "--reason", "users complain")
    assert (back["action"], back["version"], back["replaced"]) == ("roll back", 1, 2)
    assert states(project)["edit"] == "held"
    assert factory_json(project, "run")["outcomes"] == []
    (edit,) = [one for one in factory_json(project, "registry", "list") if one["feature"] == "edit"]
    assert edit["production"] == 1
    (released,) = factory_json(project, "release-hold", "edit", "--reason", "it was something else")
    assert (released["action"], released["version"]) == ("release hold", 2)
    assert states(project)["edit"] == "awaiting promotion"
    staged = factory_json(project, "promote", "edit", "2", "--reason", "look", "--rollout", "5%", "--dry-run")
    assert (staged["would_write"]["action"], staged["would_write"]["share"]) == ("rollout", 0.05)
    assert states(project)["edit"] == "awaiting promotion"


def test_a_version_that_failed_its_gates_is_not_built_again(project: Path) -> None:
    recipe = project / "features/brief/recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(
        text.replace("better_than_baseline: {value: -1.0}", "better_than_baseline: {value: 1.0}"), "utf-8"
    )
    ran = factory_json(project, "run", "brief", code=1)
    (outcome,) = ran["outcomes"]
    assert (outcome["state"], outcome["passed"]) == ("rejected", False)
    assert [gate["name"] for gate in outcome["gates"] if not gate["passed"]] == ["better_than_baseline"]
    # Another gate asks no model anything, and trains nothing.
    assert outcome["seconds"]["answers"] == 0.0 and "training" not in outcome["seconds"]
    assert states(project)["brief"] == "rejected"
    assert factory_json(project, "run", "brief")["outcomes"] == []
    (brief,) = [one for one in factory_json(project, "registry", "list") if one["feature"] == "brief"]
    assert brief["production"] == 1
    recipe.write_text(text, "utf-8")
    assert states(project)["brief"] == "fresh"


def test_another_base_makes_every_feature_stale(project: Path) -> None:
    make_tiny_base(project / "other", seed=1)
    stored = _stored(project)
    asked = factory_json(project, "plan", "--if-base", str(project / "other"))
    assert _stored(project) == stored, "asking builds nothing"
    assert asked["base"]["state"] == "stale"
    assert {one["feature"]: one["state"] for one in asked["features"]} == dict.fromkeys(FEATURES, "stale")
    assert min(one["cost_seconds"] for one in (asked["base"], *asked["features"])) > 0
    assert factory_json(project, "plan")["base"]["state"] == "fresh", "asking changes nothing"
    outcome = factory_json(project, "base", "release", str(project / "other"))
    assert outcome["state"] == "promoted"
    assert factory_json(project, "plan")["base"]["key"] == asked["base"]["key"]
    assert states(project) == dict.fromkeys(FEATURES, "stale")
    keys = {reason["key"] for one in factory_json(project, "plan")["features"] for reason in one["reasons"]}
    assert "base_release" in keys

    compared = factory_json(project, "base", "diff", "1", "2")
    assert "base_model" in [change["key"] for change in compared["lineage"]]
    assert compared["recipe"] == []
    assert all(None not in pair for pair in compared["figures"].values())


def test_nothing_that_is_needed_is_collected(project: Path) -> None:
    """Of a whole history only what led to nothing in use goes, and the next run has nothing to do."""
    before = states(project)
    kept = factory_json(project, "gc", "--older-than", "30d")
    assert kept == {"removed": True, "entries": [], "leftovers": []}
    planned = factory_json(project, "gc", "--dry-run", "--older-than", "0h")
    removed = factory_json(project, "gc", "--older-than", "0h")
    assert removed == planned | {"removed": True}
    assert "training" in [entry["stage"] for entry in removed["entries"]]
    assert states(project) == before
    assert factory_json(project, "gc", "--older-than", "0h")["entries"] == []


def test_a_budget_is_explored_and_then_kept(project: Path) -> None:
    explored = factory_json(project, "base", "explore")
    assert len(explored["points"]) > 4
    assert Path(explored["page"]).read_text("utf-8").startswith("<!doctype html>")
    outcome = factory_json(project, "base", "release", "--bpw", "3.7")
    assert outcome["bits_per_weight"][0] <= 3.7
    assert factory_json(project, "plan")["base"]["state"] == "fresh"
    (change,) = [one for one in factory_json(project, "base", "diff", "2", "3")["recipe"] if "per_weight" in one["key"]]
    assert change == {"key": "palettization.bits_per_weight", "old": "None", "new": "3.7"}


def _stored(project: Path) -> list[Path]:
    """What lies in the store and among the base models."""
    return sorted(path for folder in ("store", "bases") for path in (project / ".factory" / folder).glob("*/*"))


def _stage_file(project: Path, feature: str, name: str) -> list[str]:
    found = [
        entry / "output" / name
        for entry in (project / ".factory/store/data").iterdir()
        if json.loads((entry / "stage.json").read_text("utf-8"))["inputs"]["feature"] == feature
    ]
    return found[-1].read_text("utf-8").splitlines()
