"""The one loop: ask the plan what is to be done, and start a run for each thing that nobody does yet.

Events, the clock and requests only wake it. What is running is told by the part of the workspace that a run holds: a
run whose part nobody holds is dead, whatever Prefect's server believes. So a crashed worker's work is started again at
the next look, and goes on from the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from adapters.recipe import Recipe
from flows.events import announce, part_of
from flows.factory import Factory, open_factory
from flows.planning import Plan, make_plan
from flows.stops import stop_of, stop_of_base
from flows.tasks import HOUR
from infra.canonical import digest
from infra.progress import console
from registry.decisions import BASE
from registry.projection import repair

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

DEPLOYMENT = "factory"
# How long a run may need from a worker to its process, and from there to its part of the workspace, before it counts as
# dead. A worker makes a process at once; a Job may wait for its node and its image until its deadline (`seconds` in the
# job templates), and Prefect's worker says so if it cannot be made.
_PROCESS_BEGINS, JOB_ENDS, _RUN_HOLDS = timedelta(seconds=120), timedelta(days=1), timedelta(seconds=20)
# Runs of the same inputs within a day that died, or ended and changed nothing, after which a person must look.
_ATTEMPTS = 5
_FRUITLESS = (StateType.CRASHED, StateType.COMPLETED)
_LIVE = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)


@dataclass(frozen=True)
class Work:
    """A run that is wanted: its flow, what it is about, the part that it holds, its inputs' key, its parameters.

    `job_variables` are what its Job asks for, where the work pool is Kubernetes'.
    """

    flow: str
    subject: str
    part: str
    key: str
    parameters: dict[str, Any]
    job_variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """What its runs are found by: the subject, and the inputs."""
        return [f"factory:{self.subject}", f"factory:{self.key[:16]}"]


@flow(name="reconcile", validate_parameters=False)
def reconcile(home: str | None, profile: str | None) -> list[str]:
    """Start what the plan asks for and nobody does; returns what was started."""
    factory = open_factory(home, profile)
    with factory.workspace.lock("reconcile", HOUR), get_client(sync_client=True) as client:
        with factory.workspace.lock("decisions", HOUR):
            repair(factory.registry)
        announce(factory)
        return [work.subject for work in wanted(factory, make_plan(factory, [])) if start(factory, client, work)]


def wanted(factory: Factory, plan: Plan) -> list[Work]:
    """The runs that would do what the plan says, without those that the same inputs have stopped before."""
    stops = {subject: key for subject, (key, _) in factory.notes.stops().items()}
    where = {"home": str(factory.workspace.root), "profile": factory.settings.profile}
    if plan.announced or plan.base.needs_work:
        key = stop_of_base(factory)
        if stops.get(BASE) != key:
            source = plan.announced.source if plan.announced else None
            return [Work("release-base", BASE, BASE, digest(key), {**where, "source": source})]
        if plan.base.state == "missing":
            return []
    return [
        Work(
            "retrain",
            one.feature,
            part_of(one.feature),
            digest([stop_of(one), one.state]),
            {**where, "feature": one.feature, "promote": True},
            job_variables(factory.feature(one.feature).recipe),
        )
        for one in plan.features
        if one.needs_work and stops.get(one.feature) != stop_of(one)
    ]


def job_variables(recipe: Recipe) -> dict[str, str]:
    """What a Job that builds this feature asks for, as the job templates name it; what is unsaid is the template's."""
    asked = {"gpus": str(recipe.training.devices)}
    if recipe.resources.cpu:
        asked["cpu"] = f"{recipe.resources.cpu:g}"
    if recipe.resources.memory:
        asked |= {"memory": recipe.resources.memory, "memory_limit": recipe.resources.memory}
    return asked


def start(factory: Factory, client: SyncPrefectClient, work: Work) -> bool:
    """Start a run, unless one of its subject is there: that one reads the newest inputs, or the plan finds it stale."""
    if factory.workspace.holds(work.part):
        return False
    deployment = client.read_deployment_by_name(f"{work.flow}/{DEPLOYMENT}")
    of_flow = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_LIVE)))
    live = client.read_flow_runs(
        deployment_filter=of_flow,
        flow_run_filter=FlowRunFilter(state=state, tags=FlowRunFilterTags(all_=work.tags[:1])),
    )
    pool = client.read_work_pool(deployment.work_pool_name).type if deployment.work_pool_name else None
    if not all_dead(client, live, pool):
        return False
    same = FlowRunFilterTags(all_=work.tags)
    today = FlowRunFilterExpectedStartTime.model_validate({"after_": datetime.now(UTC) - timedelta(days=1)})
    ended = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_FRUITLESS)))
    fruitless = FlowRunFilter(tags=same, state=ended, expected_start_time=today)
    if len(client.read_flow_runs(deployment_filter=of_flow, flow_run_filter=fruitless, limit=_ATTEMPTS)) == _ATTEMPTS:
        console.print(f"  {work.subject}: {_ATTEMPTS} runs over these inputs led to nothing; look at Prefect's pages")
        return False
    newest = client.read_flow_runs(
        deployment_filter=of_flow,
        flow_run_filter=FlowRunFilter(tags=same),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    # Of two who ask at once, both get the same run. A number of runs would come again: of long lists the server gives a
    # part, and people delete runs. One that a person repeated is the newest again.
    last = f"{newest[0].id} {newest[0].run_count}" if newest else ""
    client.create_flow_run_from_deployment(
        deployment.id,
        parameters=work.parameters,
        tags=work.tags,
        idempotency_key=f"{work.key} {last}",
        job_variables=dict(work.job_variables) if pool == "kubernetes" else None,
    )
    return True


def all_dead(client: SyncPrefectClient, runs: "Sequence[FlowRun]", pool: str | None) -> bool:
    """Whether none of the runs is alive, given that nobody holds their part; the dead are written off.

    What is scheduled is alive: a worker will take it. `pool` is the type of the work pool, None for `factory serve`.
    """
    begins = _PROCESS_BEGINS if pool in (None, "process") else JOB_ENDS
    graces = {StateType.PENDING: begins, StateType.RUNNING: _RUN_HOLDS}
    alive = False
    for run in runs:
        grace = graces.get(run.state_type) if run.state_type else None
        if grace is None or run.state is None or datetime.now(UTC) - run.state.timestamp < grace:
            alive = True
        else:
            message = "The process that ran it is gone: nobody holds its part of the workspace."
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return not alive
