"""Keeping a channel alive: signatures renewed before they expire, keys replaced.

A key of an online role is replaced in an order in which devices never see a state that they refuse: first the role is
signed with the old key and the new one, then the root names the new one alone. A rotation that was killed goes on when
it is started again.
"""

import copy
from dataclasses import dataclass
from datetime import timedelta

from tuf.api.metadata import Root, Snapshot, Timestamp

from infra.errors import FactoryError
from registry.channel.metadata import ONLINE_ROLES, PERIODS, State, is_due
from registry.channel.repository import Draft, Repository

_ROOT_WARNING = timedelta(days=60)


@dataclass(frozen=True)
class Upkeep:
    """Roles that were signed again, and what somebody must do."""

    signed: list[str]
    warnings: list[str]


def warnings_of(repository: Repository, state: State) -> list[str]:
    """What expires soon, and is not renewed without somebody."""
    now, warnings = repository.now(), []
    if is_due(Timestamp.type, state.expires, now):
        what = "has expired: devices refuse the channel" if state.expires <= now else "expires soon"
        warnings.append(f"timestamp {what} ({state.expires:%Y-%m-%d %H:%M} UTC); `factory channel refresh` renews it")
    if state.root.signed.expires - now < _ROOT_WARNING:
        warnings.append(
            f"root expires on {state.root.signed.expires:%Y-%m-%d}; bring its key and run `factory channel refresh`"
        )
    for name, when in sorted(state.expiries.items()):
        if name != Root.type and is_due(name, when, now) and _is_kept_elsewhere(repository, name):
            what = f"expires on {when:%Y-%m-%d}" if when > now else f"expired on {when:%Y-%m-%d}, devices refuse it,"
            warnings.append(
                f"{name} {what} and its key is not here; bring {name}.pem back and run `factory channel refresh`"
            )
    return warnings


def refresh(repository: Repository) -> Upkeep:
    """Sign again what has less than half of its time left; publishes nothing if nothing has.

    A role whose key is kept elsewhere is left as it is, and warned of: it must not keep the others from being signed.

    Raises:
        FactoryError: nothing is published yet, or the key of snapshot or timestamp is missing.
    """
    state = repository.published()
    now, signed = repository.now(), []
    root = state.root.signed
    if is_due(Root.type, root.expires, now) and repository.keys.has(Root.type):
        renewed = copy.deepcopy(root)
        renewed.version += 1
        renewed.expires = now + PERIODS[Root.type]
        repository.publish_root(renewed)
        signed.append(Root.type)
    due = {
        name
        for name, when in state.expiries.items()
        if name != Root.type and is_due(name, when, now) and not _is_kept_elsewhere(repository, name)
    }
    if due:
        repository.commit(lambda draft, _: draft.renew.update(due))
        signed += sorted(due | {Snapshot.type, Timestamp.type})
    return Upkeep(signed, warnings_of(repository, repository.published()))


def _is_kept_elsewhere(repository: Repository, role: str) -> bool:
    """Whether a role's key is not here, and other roles can be signed without it: snapshot and timestamp always are."""
    return role not in (Snapshot.type, Timestamp.type) and not repository.keys.has(role)


def rotate(repository: Repository, role: str) -> None:
    """Replace the key of `root`, `targets`, `snapshot`, `timestamp` (with the root's key) or `feature-NAME`.

    Raises:
        FactoryError: no such role, or a key that it takes is not here.
    """
    state = repository.published()
    if role in (Root.type, *ONLINE_ROLES):
        _rotate_top(repository, role)
    elif role in state.delegated:
        _rotate_feature(repository, role)
    else:
        known = ", ".join([Root.type, *ONLINE_ROLES, *state.delegated])
        raise FactoryError(f"{role!r} is no role of this channel; there are: {known}")


def _rotate_top(repository: Repository, role: str) -> None:
    repository.keys.signers(Root.type)  # before anything is made or written
    new = repository.keys.make_next(role).public_key
    root = repository.published().root.signed
    if new.keyid not in root.roles[role].keyids:
        if role != Root.type:
            repository.commit(lambda draft, _: draft.renew.add(role))
        root = copy.deepcopy(repository.published().root.signed)
        root.version += 1
        root.expires = repository.now() + PERIODS[Root.type]
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(new, role)
        repository.publish_root(root)
    repository.keys.take_next(role)


def _rotate_feature(repository: Repository, name: str) -> None:
    new = repository.keys.make_next(name).public_key

    def change(draft: Draft, state: State) -> None:
        if new.keyid not in state.targets.signed.get_delegated_role(name).keyids:
            draft.keys.add(name)

    repository.commit(change)
    repository.keys.take_next(name)
