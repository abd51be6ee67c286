"""What is wanted, started and written off, on a real Prefect server that has no workers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed, Pending, Running, State

from flows.deployments import deployments, enter
from flows.events import announce_base
from flows.factory import Factory
from flows.planning import Plan
from flows.reconcile import JOB_ENDS, Work, all_dead, start, wanted
from flows.stops import stop_of, stop_of_base
from infra.settings import Settings
from registry.base_plan import BasePlan
from registry.plan import FeaturePlan
from tests.flows.line import make_feature
from tests.servers import prefect_server

pytestmark = pytest.mark.servers
# Of a list the server gives so many, as Prefect's own gives 200.
LIMIT = 10
KUBERNETES = Path(__file__).parents[2] / "infra/deploy/kubernetes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncPrefectClient]:
    """A client of a server that knows the deployments, in a pool for processes."""
    folder = tmp_path_factory.mktemp("prefect")
    with prefect_server(folder, LIMIT) as url, temporary_settings({PREFECT_API_URL: url}):
        for _ in ("entered", "entered again"):
            enter(deployments("factory", None, folder), ["factory"], 2, "http://127.0.0.1:9/hook")
        with get_client(sync_client=True) as client:
            yield client


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    folder = make_feature(tmp_path / "features" / "edit", "sari")
    with (folder / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("resources: {cpu: 4, memory: 24Gi}\n")
    base = str(tmp_path / "base")
    return Factory(Settings(home=tmp_path / "home", base=base, features=[folder], shipped_features=False))


def work(key: str) -> Work:
    """A rebuild over inputs that no other test has."""
    parameters: dict[str, Any] = {"home": None, "profile": None, "feature": key, "promote": True}
    return Work("retrain", key, f"feature-{key}", key.ljust(16, "-"), parameters)


def runs(client: SyncPrefectClient, one: Work) -> list[dict[str, Any]]:
    """All runs of a work, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        wanted = {"flow_runs": {"tags": {"all_": one.tags}}, "limit": LIMIT, "offset": len(found)}
        page = client.request("POST", "/flow_runs/filter", json=wanted).json()
        found += page
        if len(page) < LIMIT:
            return found


def end(client: SyncPrefectClient, one: Work, state: State) -> None:
    """End the newest run of a work, as a worker would."""
    (live,) = [run for run in runs(client, one) if run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING")]
    client.set_flow_run_state(live["id"], Running(), force=True)
    client.set_flow_run_state(live["id"], state, force=True)


def test_what_the_server_knows(server: SyncPrefectClient) -> None:
    names = ("reconcile", "release-base", "retrain", "run-plan", "explore-base")
    entered = [server.read_deployment_by_name(f"{flow}/factory") for flow in names]
    assert [one.work_queue_name for one in entered] == ["plan", *4 * ["builds"]]
    queues = {
        name: server.read_work_queue_by_name(name, work_pool_name="factory") for name in ("plan", "builds", "default")
    }
    assert queues["plan"].priority == 1 and queues["plan"].concurrency_limit is None
    assert queues["builds"].concurrency_limit == 2
    found = server.request("POST", "/automations/filter", json={}).json()
    told = ["a change wakes the plan", "a run that died wakes the plan", "people are told of decisions"]
    assert sorted(one["name"] for one in found) == [f"factory: {name}" for name in told]


def test_flows_that_train_go_to_the_pool_with_gpus_and_jobs_ask_for_what_the_recipe_says(
    server: SyncPrefectClient, factory: Factory, tmp_path: Path
) -> None:
    template = json.loads((KUBERNETES / "gpu/job-template.json").read_text("utf-8"))
    server.create_work_pool(WorkPoolCreate(name="gpus", type="kubernetes", base_job_template=template))
    try:
        enter(deployments("factory", None, tmp_path, "gpus"), ["factory", "gpus"], 1, "")
        where = {
            name: server.read_deployment_by_name(f"{name}/factory").work_pool_name
            for name in ("reconcile", "release-base", "retrain", "run-plan", "explore-base")
        }
        assert where.pop("reconcile") == "factory" and set(where.values()) == {"gpus"}
        assert server.read_work_queue_by_name("builds", work_pool_name="gpus").concurrency_limit == 1
        assert server.read_work_pool("gpus").type == "kubernetes"
        (one,) = wanted(factory, plan_of("stale"))
        assert start(factory, server, one)
        (run,) = runs(server, one)
        asked = {"cpu": "4", "memory": "24Gi", "memory_limit": "24Gi", "gpus": "1"}
        assert (run["work_pool_name"], run["job_variables"]) == ("gpus", asked)
    finally:
        enter(deployments("factory", None, tmp_path), ["factory"], 2, "")
    assert start(factory, server, work("process"))
    assert not runs(server, work("process"))[0]["job_variables"]


def test_a_run_is_started_once_while_it_is_there(server: SyncPrefectClient, factory: Factory) -> None:
    one = work("once")
    assert start(factory, server, one)
    assert not start(factory, server, one), "it is scheduled"
    (run,) = runs(server, one)
    assert run["parameters"] == one.parameters and run["work_queue_name"] == "builds"
    server.set_flow_run_state(run["id"], Failed(), force=True)
    with factory.workspace.lock(one.part):
        assert not start(factory, server, one), "somebody holds its part"
    assert start(factory, server, one)
    assert len(runs(server, one)) == 2


def test_retries_go_on_after_more_runs_than_the_server_lists(server: SyncPrefectClient, factory: Factory) -> None:
    one = work("many")
    for number in range(LIMIT + 3):
        assert start(factory, server, one)
        assert len(runs(server, one)) == number + 1, "what is said to be started is there"
        end(server, one, Failed())


def test_retries_go_on_though_runs_were_deleted(server: SyncPrefectClient, factory: Factory) -> None:
    one = work("deleted")
    for _ in range(3):
        assert start(factory, server, one)
        end(server, one, Failed())
    for place in (0, 1, 0):
        oldest_first = sorted(runs(server, one), key=lambda run: str(run["start_time"]))
        server.delete_flow_run(oldest_first[place]["id"])
        left = len(runs(server, one))
        assert start(factory, server, one)
        assert len(runs(server, one)) == left + 1
        end(server, one, Failed())


def test_a_run_that_a_person_repeats_hides_none(server: SyncPrefectClient, factory: Factory) -> None:
    one = work("repeated")
    assert start(factory, server, one)
    (first,) = runs(server, one)
    server.set_flow_run_state(first["id"], Crashed(message="before it began"), force=True)
    assert start(factory, server, one)
    end(server, one, Failed())
    server.set_flow_run_state(first["id"], Running(), force=True)
    server.set_flow_run_state(first["id"], Failed(), force=True)
    assert start(factory, server, one)
    assert len(runs(server, one)) == 3


@pytest.mark.parametrize("state", [Crashed(), Completed()], ids=["crashed", "completed"])
def test_after_five_runs_that_led_to_nothing_a_person_must_look(
    server: SyncPrefectClient, factory: Factory, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    one = work(f"useless-{state.name}")
    for number in range(9):
        assert start(factory, server, one)
        end(server, one, Failed() if number % 2 else state)
    assert not start(factory, server, one)
    assert "5 runs over these inputs led to nothing" in capsys.readouterr().err
    assert start(factory, server, work(f"others-{state.name}")), "other inputs are another matter"


def test_the_dead_are_written_off_and_the_living_are_not(
    server: SyncPrefectClient, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = work("dead")
    assert start(factory, server, one)
    for state in (Pending(), Running()):
        (live,) = [run for run in runs(server, one) if run["state_type"] == "SCHEDULED"]
        server.set_flow_run_state(live["id"], state, force=True)
        assert not start(factory, server, one), "it has just begun"
        with monkeypatch.context() as later:
            later.setattr("flows.reconcile.datetime", _Later)
            assert start(factory, server, one)
        assert server.read_flow_run(live["id"]).state_name == "Crashed"


class _Later:
    @staticmethod
    def now(zone: object) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=10)


@pytest.mark.parametrize(
    ("kind", "state", "minutes", "dead"),
    [
        (None, Pending(), 1, False),
        (None, Pending(), 3, True),
        ("process", Pending(), 3, True),
        ("kubernetes", Pending(), 3, False),
        ("kubernetes", Pending(), 600, False),
        ("kubernetes", Pending(), 25 * 60, True),
        ("kubernetes", Running(), 1, True),
        ("process", Running(), 1, True),
    ],
)
def test_a_job_that_waits_for_its_node_is_alive(kind: str | None, state: State, minutes: int, dead: bool) -> None:
    written: list[str] = []
    client: Any = SimpleNamespace(set_flow_run_state=lambda run, state, force: written.append(run))
    state.timestamp = datetime.now(UTC) - timedelta(minutes=minutes)
    run: Any = SimpleNamespace(id="run", state_type=state.type, state=state)
    assert all_dead(client, [run], kind) is dead
    assert written == (["run"] if dead else [])


def plan_of(state: str, *, base: str = "fresh", version: int | None = None) -> Plan:
    one = FeaturePlan("edit", state, "release", "lineage", "evaluation", version)  # type: ignore[arg-type]
    return Plan(BasePlan(base, "release"), ["edit"], [one])  # type: ignore[arg-type]


def test_what_is_wanted(factory: Factory) -> None:
    assert wanted(factory, plan_of("fresh")) == []
    (one,) = wanted(factory, plan_of("stale"))
    assert (one.flow, one.subject, one.part) == ("retrain", "edit", "feature-edit")
    assert one.parameters["home"] == str(factory.workspace.root)
    (again,) = wanted(factory, plan_of("needs evaluation"))
    assert one.key != again.key, "another state is another piece of work"
    factory.notes.stopped("edit", stop_of(plan_of("stale").features[0]), "half of the records are no records")
    assert wanted(factory, plan_of("stale")) == []


def test_the_base_comes_first(factory: Factory) -> None:
    (one,) = wanted(factory, plan_of("stale", base="stale"))
    assert (one.flow, one.subject, one.parameters["source"]) == ("release-base", "base", None)
    factory.notes.stopped("base", stop_of_base(factory), "an unknown model")
    assert [one.subject for one in wanted(factory, plan_of("stale", base="stale"))] == ["edit"]
    assert wanted(factory, plan_of("stale", base="missing")) == []
    announce_base(factory, "hf://org/name")
    (two,) = wanted(factory, plan_of("stale", base="missing"))
    assert two.subject == "base" and two.key != one.key, "what was announced is another base"


def test_a_job_ends_before_it_counts_as_dead() -> None:
    for pool in ("base", "gpu"):
        template = KUBERNETES / pool / "job-template.json"
        seconds = json.loads(template.read_text("utf-8"))["variables"]["properties"]["seconds"]["default"]
        assert timedelta(seconds=seconds) == JOB_ENDS
