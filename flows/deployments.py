"""What Prefect's server is told of the factory: deployments, work pools, and automations that wake the plan.

Debouncing is Prefect's: a trigger fires at the first event and then not again for the quiet time, and what it starts
begins when that time is over. So a burst gives one look, which sees all of it; what comes later fires again.
"""

import importlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect import Flow
from prefect.automations import Automation, EventTrigger, Posture
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import RunDeployment, SendNotification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from flows.events import PREFIX, TOLD

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
QUIET = timedelta(seconds=10)
_RECONCILE = "flows.reconcile.reconcile"
_PLAN, _BUILDS = "plan", "builds"  # the queues of a pool
_NOTIFY = "factory-decisions"
_TOLD_AS = (
    "{{ event.payload.subject }} {{ event.payload.version }}: {{ event.payload.action }} by {{ event.payload.actor }}, "
    "{{ event.payload.reason }}"
)


def deployments(
    pool: str | None, every: timedelta | None, folder: Path, gpu_pool: str | None = None
) -> list[RunnerDeployment]:
    """The deployments of `prefect.yaml`: for a work pool, whose processes run in `folder`, or for this process.

    `every` is how often the plan is asked though nothing has happened, instead of what the file says. Flows that build
    go to `gpu_pool`, if there is one: each of them trains, or measures what takes as long.
    """
    entries = yaml.safe_load(PREFECT_YAML.read_text("utf-8"))["deployments"]
    builds = gpu_pool or pool
    return [
        _deployment(entry, builds if entry["work_pool"]["work_queue_name"] == _BUILDS else pool, every, folder)
        for entry in entries
    ]


def _deployment(entry: dict[str, Any], pool: str | None, every: timedelta | None, folder: Path) -> RunnerDeployment:
    module, _, name = entry["entrypoint"].rpartition(".")
    run: Flow[..., Any] = getattr(importlib.import_module(module), name)
    schedules = entry.get("schedules", [])
    interval = every or (timedelta(seconds=schedules[0]["interval"]) if schedules else None)
    in_pool = {"work_pool_name": pool, "work_queue_name": entry["work_pool"]["work_queue_name"]}
    made = run.to_deployment(
        name=entry["name"],
        description=entry["description"],
        parameters=entry["parameters"],
        interval=interval if schedules else None,
        entrypoint_type=EntrypointType.MODULE_PATH,
        **(in_pool | {"job_variables": {"working_dir": str(folder)}} if pool else {}),
    )
    assert isinstance(made, RunnerDeployment)
    return made


def enter(made: Sequence[RunnerDeployment], pools: Sequence[str], builds: int | None, notify_url: str) -> None:
    """Enter deployments and automations; what is there under the same names is replaced.

    A pool that is not there is made for processes on workers' machines; at most `builds` of its runs build at once.
    """
    with get_client(sync_client=True) as client:
        for pool in pools:
            _make_pool(client, pool, builds)
        ids = {str(one.entrypoint): one.apply() for one in made}
        wakes = ids[_RECONCILE]
        assert isinstance(wakes, UUID)
        automations = [
            _run(wakes, "factory: a change wakes the plan", [f"{PREFIX}*"]),
            _run(wakes, "factory: a run that died wakes the plan", ["prefect.flow-run.Crashed"]),
        ]
        if notify_url:
            automations.append(_tell(notify_url))
        for automation in automations:
            for old in client.read_automations_by_name(automation.name):
                client.delete_automation(old.id)
            automation.create()


def _make_pool(client: SyncPrefectClient, pool: str, builds: int | None) -> None:
    try:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        pass
    for name, priority, limit in ((_PLAN, 1, None), (_BUILDS, 2, builds)):
        try:
            queue = client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            queue = client.create_work_queue(name, work_pool_name=pool)
        client.update_work_queue(queue.id, priority=priority, concurrency_limit=limit)


def _run(deployment: UUID, name: str, events: Sequence[str]) -> Automation:
    trigger = EventTrigger(expect=set(events), posture=Posture.Reactive, threshold=1, within=QUIET)
    wanted = {"deployment_id": deployment, "schedule_after": QUIET}
    return Automation(name=name, trigger=trigger, actions=[RunDeployment.model_validate(wanted)])


def _tell(url: str) -> Automation:
    """Chat systems that know webhooks (Slack, Mattermost, Rocket.Chat) show `text`."""
    content = {"name": _NOTIFY, "url": url, "json_data": {"text": "{{body}}", "title": "{{subject}}"}}
    saved = CustomWebhookNotificationBlock.model_validate(content).save(_NOTIFY, overwrite=True)
    assert isinstance(saved, UUID)
    events = {PREFIX + name for name in TOLD}
    trigger = EventTrigger(expect=events, posture=Posture.Reactive, threshold=1, within=timedelta(0))
    action = SendNotification(block_document_id=saved, subject="Adapter Factory", body=_TOLD_AS)
    return Automation(name="factory: people are told of decisions", trigger=trigger, actions=[action])
