"""Decisions and audits need no recipe: a feature whose recipe is wrong, or gone, is taken back as before."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from infra.errors import FactoryError
from registry import rollout
from registry.promotion import promote, rollback
from tests.registry.conftest import Place, empty_mlflow, open_place, place  # noqa: F401
from tests.registry.samples import ACTOR

pytestmark = pytest.mark.servers
FEATURE = "summarization"
WHO = {"actor": ACTOR, "reason": "test"}


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def workspace(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:  # noqa: F811
    """A workspace without shipped features, whose ledger has decisions about one of them, and one that is to come."""
    release = place.release()
    for data in ("one", "two", "three"):
        version = place.version(release, data)
        if data != "three":
            promote(place.registry, FEATURE, version.version, **WHO)
    rollback(place.registry, FEATURE, **WHO)
    folder = place.folder.parent
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FACTORY_HOME", str(place.folder))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FACTORY_SHIPPED_FEATURES", "false")
    (folder / "replies").mkdir()
    (folder / "replies/recipe.yaml").write_text("feature: replies\nunknown: yes\n")
    (folder / "factory.toml").write_text('features = ["replies"]\n')
    return place


def test_a_feature_without_a_recipe_is_taken_back_and_told_about(workspace: Place) -> None:
    assert len(json.loads(run("history", FEATURE, "--json"))) == 3
    at = json.loads(run("registry", "at", "2100-01-01", FEATURE, "--json"))["production"]
    assert [one["version"] for one in at] == [1]
    why = ("--reason", "complaints", "--json")
    assert [row["version"] for row in json.loads(run("release-hold", FEATURE, *why))] == [2]
    assert json.loads(run("rollback", FEATURE, "--to", "2", *why))["version"] == 2
    assert json.loads(run("rollback", FEATURE, "--to", "1", *why))["version"] == 1
    run("release-hold", FEATURE, *why)
    rollout.start(workspace.registry, FEATURE, 3, 0.1, force=True, **WHO)
    assert json.loads(run("rollout", FEATURE, "20%", *why))["share"] == 0.2
    assert json.loads(run("rollout", FEATURE, "--halt", *why))["replaced"] == 3
    assert len(json.loads(run("registry", "show", FEATURE, "--json"))) == 3


def test_a_feature_without_decisions_must_have_a_recipe(workspace: Place) -> None:
    for name in ("titles", "base", "../summarization"):
        with pytest.raises(FactoryError, match=r"no feature|recipe\.yaml"):
            run("rollback", name, "--reason", "test")
    with pytest.raises(FactoryError, match="unknown"):
        run("history", "replies")


def test_lists_name_what_the_ledger_serves_beside_what_is_run(workspace: Place) -> None:
    shown = {row["feature"]: row for row in json.loads(run("registry", "list", "--json"))}
    assert [(name, row["production"], row["run"]) for name, row in shown.items()] == [
        ("replies", None, True),
        (FEATURE, 1, False),
    ]
    assert f"{FEATURE} (not run any more)" in run("registry", "list")
    matrix = json.loads(run("registry", "matrix", "--json"))
    assert matrix["not_run"] == [FEATURE]
    assert [one["feature"] for one in matrix["features"]] == ["replies", FEATURE]
    assert f"{FEATURE} (not run any more)" in run("registry", "matrix")
