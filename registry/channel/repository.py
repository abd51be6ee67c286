"""The channel's TUF repository: reading its state, and publishing the next one.

Notable choices:
- Everything is written under a name that is not in use, the timestamp last: until then devices see the old state, and
  whatever a kill leaves behind is named by nothing. The next publication goes its own way past it.
- The timestamp is replaced on condition that it is the one that was read. Of two publishers the late one reads the new
  state and makes its change upon that.
- Timestamp and snapshot are always written together, and share their version.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from adapters.device.channel_layout import TARGETS
from infra.errors import CheckFailed, FactoryError
from registry.chain import Head
from registry.channel.keys import Keys
from registry.channel.metadata import (
    ONLINE_ROLES,
    PERIODS,
    TIMESTAMP_FILE,
    Kind,
    State,
    damaged,
    delegate,
    empty_targets,
    key_of,
    make_snapshot,
    meta_of,
    next_version,
    parsed,
    period_of,
    signed_bytes,
    utc_now,
    verified,
)
from registry.channel.stores import Store

_TRIES = 10


@dataclass
class Draft:
    """What is to be published next.

    `heads` are the ledger's heads to anchor; `targets` is the new content of features' roles by name; `renew`
    are roles that are signed again as they are, `keys` those of features that get their next key.
    """

    heads: dict[str, Head]
    targets: dict[str, dict[str, TargetFile]] = field(default_factory=dict)
    renew: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


def target_key(info: TargetFile) -> str:
    """Where a target lies in the store: under a name that carries its content."""
    return f"{TARGETS}/{info.get_prefixed_paths()[0]}"


class Repository:
    """The repository in a store, signed with the keys of a folder. `now` is the clock."""

    def __init__(self, store: Store, keys: Keys, now: Callable[[], datetime] = utc_now) -> None:
        self.store = store
        self.keys = keys
        self.now = now
        self._last: State | None = None

    def state(self) -> State | None:
        """The published state, None if there is none yet.

        Raises:
            FactoryError: the keys of this channel are elsewhere, or metadata was changed without them.
        """
        found = self.store.read(TIMESTAMP_FILE)
        if found is None:
            return None
        root = self._root()
        if self._last and (self._last.tag, self._last.root.signed.version) == (found.tag, root.signed.version):
            return self._last
        place = self.store.place
        timestamp = verified(
            Timestamp, Timestamp.type, found.content, None, root.signed, f"{place}/{TIMESTAMP_FILE}"
        ).signed
        snapshot = self._read(Snapshot, Snapshot.type, timestamp.snapshot_meta, root.signed)
        meta = snapshot.signed.meta["targets.json"]
        targets = self._read(Targets, Targets.type, meta, root.signed)
        self._last = State(root, targets, snapshot, timestamp.expires, found.tag)
        self.keys.keep_seen(place, snapshot.signed.version, self._last.heads)
        return self._last

    def published(self) -> State:
        """The published state.

        Raises:
            FactoryError: nothing is published yet, and what `state` raises.
        """
        state = self.state()
        if state is None:
            raise FactoryError(f"{self.store.place}: nothing is published yet; `factory init` starts the channel")
        return state

    def role(self, state: State, name: str) -> Metadata[Targets] | None:
        """The role of a feature, None if nothing was published for it yet."""
        meta = state.snapshot.signed.meta.get(f"{name}.json")
        if meta is not None and name not in state.roles:
            state.roles[name] = self._read(Targets, name, meta, state.targets.signed)
        return state.roles.get(name)

    def target(self, info: TargetFile) -> bytes:
        """The content of a small target.

        Raises:
            FactoryError: it is missing or was changed.
        """
        key = target_key(info)
        found = self.store.read(key)
        if found is None:
            raise damaged(f"{self.store.place}/{key}", "it is missing")
        try:
            info.verify_length_and_hashes(found.content)
        except ValueError as error:
            raise damaged(f"{self.store.place}/{key}", error) from None
        return found.content

    def commit(self, change: Callable[[Draft, State], None]) -> None:
        """Publish a change in one step; `change` is called again if somebody else was first. No change writes nothing.

        Raises:
            CheckFailed: other publishers were first again and again.
            FactoryError: a key is missing, or whatever `change` raises.
        """
        for _ in range(_TRIES):
            state = self.state() or self._start()
            draft = Draft(state.heads)
            change(draft, state)
            idle = not draft.targets and not draft.renew and not draft.keys and draft.heads == state.heads
            if (state.tag is not None and idle) or self._write(state, draft):
                return
        raise CheckFailed(f"{self.store.place}: others publish there all the time; try again")

    def publish_root(self, root: Root) -> None:
        """Sign the next root with all keys that are here for it, and publish it; devices follow it at once.

        Raises:
            CheckFailed: somebody else published a root first.
        """
        before = self._root().signed
        content = signed_bytes(Root.type, root, self.keys.signers(Root.type), before)
        verified(Root, Root.type, content, None, root, "the new root")
        if not self.store.put(key_of(Root.type, root.version), content, None):
            raise CheckFailed(f"{self.store.place}: somebody else published root {root.version}; try again")
        self.keys.keep_root(root.version, content)

    def _root(self) -> Metadata[Root]:
        """The newest root, by the chain of signatures from the newest one that is kept with the keys."""
        versions = self.keys.root_versions()
        if not versions:
            raise FactoryError(
                f"{self.store.place}: started with keys that are not here; bring the folder `keys` of that workspace"
            )
        root = parsed(Root, self.keys.read_root(versions[-1]), f"root {versions[-1]}")
        while found := self.store.read(key_of(Root.type, root.signed.version + 1)):
            where = f"{self.store.place}/{key_of(Root.type, root.signed.version + 1)}"
            meta = MetaFile(root.signed.version + 1)
            newer = verified(Root, Root.type, found.content, meta, root.signed, where)
            verified(Root, Root.type, found.content, meta, newer.signed, where)
            self.keys.keep_root(newer.signed.version, found.content)
            root = newer
        return root

    def _start(self) -> State:
        """The state of a channel that is to begin: roots are put there, everything else follows with the timestamp."""
        now = self.now()
        if not self.keys.root_versions():
            root = Root(version=1, expires=now + PERIODS[Root.type])
            for role in (Root.type, *ONLINE_ROLES):
                root.add_key(self.keys.make(role).public_key, role)
            self.keys.keep_root(1, signed_bytes(Root.type, root, self.keys.signers(Root.type), root))
        for version in self.keys.root_versions():
            content = self.keys.read_root(version)
            if not self.store.put(key_of(Root.type, version), content, None):
                found = self.store.read(key_of(Root.type, version))
                if found is None or found.content != content:
                    raise FactoryError(
                        f"{self.store.place}: belongs to other keys; bring these, or publish to another place"
                    )
        snapshot = Metadata(make_snapshot(1, now, {}, {}))
        return State(self._root(), empty_targets(now), snapshot, now, None)

    def _write(self, state: State, draft: Draft) -> bool:
        """Write what a draft changes, the timestamp last; False if somebody else has replaced it meanwhile."""
        root, targets = state.root.signed, state.targets.signed
        meta = dict(state.snapshot.signed.meta)
        new = [name for name in draft.targets if f"{name}.json" not in meta]
        if state.tag is None or new or draft.keys or Targets.type in draft.renew:
            targets = copy.deepcopy(targets)
            for name in [*new, *draft.keys]:
                make = self.keys.make_next if name in draft.keys else self.keys.make
                delegate(targets, name, make(name))
            meta["targets.json"] = self._add(Targets.type, targets, root)
        for name in sorted({*draft.targets, *draft.keys, *draft.renew} - {*ONLINE_ROLES}):
            present = self.role(state, name)
            files = draft.targets.get(name, present.signed.targets if present else {})
            role = Targets(present.signed.version if present else None, targets=files)
            meta[f"{name}.json"] = self._add(name, role, targets)
        snapshot = make_snapshot(state.snapshot.signed.version, self.now(), meta, draft.heads)
        info = self._add(Snapshot.type, snapshot, root)
        expires = self.now() + PERIODS[Timestamp.type]
        timestamp = Timestamp(snapshot.version, expires=expires, snapshot_meta=info)
        content = signed_bytes(Timestamp.type, timestamp, self.keys.signers(Timestamp.type), root)
        written = self.store.put(TIMESTAMP_FILE, content, state.tag)
        if written:
            self.keys.keep_seen(self.store.place, snapshot.version, draft.heads)
        return written

    def _add(self, name: str, signed: Signed, delegator: Root | Targets) -> MetaFile:
        """Sign a role's next version and write it under a name that is not in use."""
        signed.expires = self.now() + period_of(name)
        signed.version = next_version(signed.version, self.now())
        while True:
            content = signed_bytes(name, signed, self.keys.signers(name), delegator)
            if self.store.put(key_of(name, signed.version), content, None):
                return meta_of(signed, content)
            signed.version += 1  # of a publication that was killed, or is under way elsewhere

    def _read(self, kind: type[Kind], name: str, meta: MetaFile, delegator: Root | Targets) -> Metadata[Kind]:
        key = key_of(name, meta.version)
        found = self.store.read(key)
        where = f"{self.store.place}/{key}"
        if found is None:
            raise damaged(where, "it is missing")
        return verified(kind, name, found.content, meta, delegator, where)
