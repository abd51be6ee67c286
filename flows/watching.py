"""Look at sources that announce nothing: base models (`watched_bases`), and the head of the shared data."""

from dataclasses import asdict, dataclass
from typing import Any

from flows.events import announce_base, changing, outbox_of
from flows.factory import Factory
from infra.errors import FactoryError
from infra.watched import revision_of

_DATA = "data_remote"


@dataclass(frozen=True)
class Sight:
    """What was seen of a source: `state` is `first seen`, `unchanged`, `settling` (differs for the first time),
    `changed`, or `error`, which is then said; `revision` is what the source, or we, call its content."""

    source: str
    state: str
    revision: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form."""
        return asdict(self)


class Watcher:
    """Remembers between looks what differed: what somebody is writing just now is waited for."""

    def __init__(self) -> None:
        self._settling: dict[str, str] = {}

    def look(self, factory: Factory, act: bool = True) -> list[Sight]:
        """Look once at everything that is watched; announce what has changed and settled, and take over shared data.

        Without `act` nothing is announced, taken over or remembered.
        """
        sights = [self._look_at_base(factory, source, act) for source in factory.settings.watched_bases]
        if factory.settings.data_remote:
            sights.append(_look_at_data(factory, act))
        return sights

    def _look_at_base(self, factory: Factory, source: str, act: bool) -> Sight:
        key = f"watched {source}"
        try:
            revision = revision_of(source)
        except FactoryError as error:
            return Sight(source, "error", error=str(error))
        outbox = outbox_of(factory)
        known = outbox.mark(key)
        if known == revision:
            self._settling.pop(source, None)
            return Sight(source, "unchanged", revision)
        if known is not None and self._settling.get(source) != revision:
            self._settling[source] = revision
            return Sight(source, "settling", revision)
        if known is not None and act:
            announce_base(factory, source)
        if act:
            outbox.observe({key: revision}, lambda *_: [])
        return Sight(source, "first seen" if known is None else "changed", revision)


def _look_at_data(factory: Factory, act: bool) -> Sight:
    """Take over what others pushed, so that the plan sees the records; without `act`, say that they have."""
    remote = factory.data_remote
    try:
        head = remote.head()
        outbox = outbox_of(factory)
        if not head or outbox.mark(_DATA) == head:
            return Sight(remote.url, "unchanged", head or None)
        if not act:
            return Sight(remote.url, "changed", head)
        with changing(factory, "data", features=list(factory.features)):
            remote.pull()
        outbox.observe({_DATA: head}, lambda *_: [])
    except FactoryError as error:
        return Sight(remote.url, "error", error=str(error))
    return Sight(remote.url, "changed", head)
