"""Events of our own: what they are called, how a change is noticed, and how Prefect's server gets them.

| event | subject | when |
|---|---|---|
| base-model.changed | a source | somebody announced it, or it was watched: it holds another base model |
| base-release.registered | base | a base release was decided about: promoted or rejected |
| dataset.versioned | a feature | its records are others |
| recipe.changed, evaluation.changed | a feature | what it is built by, or judged by, is otherwise |
| adapter.ACTION | a feature | a row of the ledger: requested, approved, promoted, rejected, rolled-back … |

A change is noticed by comparing what is with what was seen last (ledger, keys), so it does not matter who made it, how,
and whether that process lived to tell. Commands and flows look when they have changed something, `factory watch` all
the time.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.factory import Factory
from flows.outbox import Event, Outbox, Waiting
from infra.prefect_server import server_url
from infra.progress import console
from registry.decisions import BASE, Row

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PREFIX = "factory."
BASE_MODEL_CHANGED = "base-model.changed"
# What each decision of a ledger is called.
_ACTIONS = {
    "accept": "accepted",
    "reject": "rejected",
    "request": "requested",
    "approve": "approved",
    "promote": "promoted",
    "roll back": "rolled-back",
    "release hold": "released",
    "rollout": "rolled-out",
}
# What people are told of.
TOLD = ("adapter.requested", "adapter.promoted", "adapter.rejected", "adapter.rolled-back", "base-release.registered")
_SEND_SECONDS = 5.0
# What says that a post is none, however often it is sent.
_REFUSED = (400, 413, 422)
_BEGUN, _WANTED = "begun", "base-wanted"


class Announced(NamedTuple):
    """A base model that is to be released: where it is, and the number of the last decision about the base by then."""

    source: str
    after: int


def outbox_path(factory: Factory) -> Path:
    """Where the outbox of a workspace is, made or not."""
    return factory.workspace.root / "events.db"


def outbox_of(factory: Factory) -> Outbox:
    """The outbox of a workspace."""
    return Outbox(outbox_path(factory))


def part_of(feature: str) -> str:
    """The part of the workspace that a run of a feature holds."""
    return f"feature-{feature}"


@contextmanager
def changing(factory: Factory, part: str, seconds: float = 0.0, features: Sequence[str] = ()) -> Iterator[None]:
    """Hold a part of the workspace for a block that decides, or changes inputs of `features`; tell what it changed."""
    with factory.workspace.lock(part, seconds):
        observe(factory, features)
        yield
    observe(factory, features)
    send(factory)


def announce(factory: Factory) -> None:
    """Notice whatever has changed, and send what waits."""
    observe(factory, list(factory.features))
    send(factory)


def observe(factory: Factory, features: Sequence[str]) -> list[Event]:
    """Notice what has changed since anybody last looked: decisions, and inputs of `features`; returns what is new.

    What is there when a workspace is first looked at is no change.
    """
    outbox = outbox_of(factory)
    begun = outbox.mark(_BEGUN) is not None
    marks = {f"ledger {feature}": str(head.number) for feature, head in factory.ledger.heads().items()}
    for name in features:
        lineage = factory.lineage(name, "")
        built, judged = lineage.build, lineage.evaluation
        marks[f"dataset.versioned {name}"] = f"{built['data']} {judged['held_out']}"
        marks[f"recipe.changed {name}"] = " ".join(key for part, key in built.items() if part.startswith("recipe."))
        marks[f"evaluation.changed {name}"] = judged["recipe.evaluation"]

    def tell(key: str, former: str | None, mark: str) -> Sequence[Event]:
        kind, _, subject = key.partition(" ")
        if kind == "ledger":
            new = factory.ledger.rows(subject)[int(former or 0) :] if begun else []
            return [event_of(row) for row in new if row.number <= int(mark)]
        return [Event(kind, subject)] if former is not None else []

    return outbox.observe(marks | {_BEGUN: "yes"}, tell)


def event_of(row: Row) -> Event:
    """The event that a decision is."""
    facts: dict[str, Any] = {
        "decision": row.number,
        "action": row.action,
        "version": row.version,
        "base_release": row.base_release,
        "actor": row.actor,
        "reason": row.reason,
        "lineage_key": row.lineage_key,
    }
    name = "base-release.registered" if row.feature == BASE else f"adapter.{_ACTIONS[row.action]}"
    return Event(name, row.feature, facts)


def announce_base(factory: Factory, source: str) -> None:
    """A source holds a base model that is to be released: remember it until the base was decided about, and tell."""
    head = factory.ledger.head(BASE)
    mark = json.dumps(Announced(source, head.number if head else 0))
    outbox_of(factory).observe({_WANTED: mark}, lambda *_: [Event(BASE_MODEL_CHANGED, source)])


def announced_base(factory: Factory) -> Announced | None:
    """The base model that is to be released, unless a decision about the base came after its announcement."""
    mark = outbox_of(factory).mark(_WANTED)
    if mark is None:
        return None
    wanted = Announced(*json.loads(mark))
    head = factory.ledger.head(BASE)
    return wanted if (head.number if head else 0) == wanted.after else None


def settle_base(factory: Factory, wanted: Announced) -> None:
    """What was announced has been released, or is what was released before."""
    outbox_of(factory).forget(_WANTED, json.dumps(wanted))


def send(factory: Factory) -> int:
    """Send what waits to Prefect's server, if one is set; returns how many events still wait.

    A server that is away keeps nobody: the next command, or `factory watch`, tries again. An event that it refuses
    would be refused again: it is told, and left out.
    """
    outbox = outbox_of(factory)
    waiting = outbox.waiting()
    if not waiting or not server_url():
        return len(waiting)
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    while waiting:
        try:
            with (
                temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
                get_client(sync_client=True, httpx_settings={"timeout": _SEND_SECONDS}) as client,
            ):
                _post(client, waiting)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            look = "check PREFECT_API_AUTH_STRING" if status in (401, 403) else "look into its log"
            console.print(f"  Prefect's server answers {status} ({look}); events wait", highlight=False)
            return len(waiting)
        except (httpx.HTTPError, RuntimeError) as error:
            console.print(f"  Prefect's server is away ({type(error).__name__}); events wait", highlight=False)
            return len(waiting)
        outbox.sent([one.number for one in waiting])
        waiting = outbox.waiting()
    return 0


def _post(client: "SyncPrefectClient", events: Sequence[Waiting]) -> None:
    """Post events together; if some of them are refused, each by itself, and those are told.

    Raises:
        httpx.HTTPError: the server is away, or takes nothing from us.
    """
    import httpx

    try:
        client.request("POST", "/events", json=[_body(one) for one in events]).raise_for_status()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status not in _REFUSED:
            raise
        if len(events) > 1:
            for one in events:
                _post(client, [one])
            return
        event = events[0].event
        told = f"  Prefect's server refuses the event {event.name} {event.subject} ({status}); it is left out"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _body(one: Waiting) -> dict[str, Any]:
    """An event as Prefect's server takes it."""
    from prefect.types._datetime import now

    return {
        "id": one.id,
        # When it is sent: Prefect's triggers overlook an event that seems to be older than what they have done.
        "occurred": now("UTC").isoformat(),
        "event": PREFIX + one.event.name,
        "resource": {
            "prefect.resource.id": f"factory.{one.event.subject}",
            "prefect.resource.name": one.event.subject,
        },
        "payload": {**one.event.facts, "subject": one.event.subject, "time": one.time},
    }
