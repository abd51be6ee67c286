"""Removing what a channel no longer names: former versions of metadata, and the files of what was taken out.

Kept are the present state, every root (devices follow them one by one), and whatever is younger than the grace period:
a publication that is under way has brought files that nothing names yet, and a device may be in the middle of the
former state. A version that goes back into production is brought again from the registry.
"""

import re
from datetime import timedelta

from infra.errors import CheckFailed
from registry.channel.metadata import TIMESTAMP_FILE, State, key_of
from registry.channel.repository import Repository, target_key
from registry.channel.stores import Stored

_OURS = re.compile(r"targets/.+|metadata/\d+\.[a-z0-9-]+\.json")
_ROOT = re.compile(r"metadata/\d+\.root\.json")


def prune(repository: Repository, grace: timedelta, dry_run: bool = False) -> list[Stored]:
    """Remove the files older than `grace` that nothing names; with `dry_run`, only say which.

    Raises:
        CheckFailed: somebody published meanwhile what was being removed.
        FactoryError: nothing is published yet, or the channel was changed without its keys.
    """
    # Listed before the state is read: what is brought from here on is not among them.
    listed = list(repository.store.files())
    named = _named(repository, repository.published())
    latest = repository.now() - grace
    gone = sorted(
        (one for one in listed if _OURS.fullmatch(one.key) and not _ROOT.fullmatch(one.key)
         and one.key not in named and one.written < latest),
        key=lambda one: one.key,
    )  # fmt: skip
    if dry_run:
        return gone
    for one in gone:
        repository.store.remove(one.key)
    lost = _named(repository, repository.published()) & {one.key for one in gone}
    if lost:
        raise CheckFailed(
            f"{repository.store.place}: {min(lost)} was published while it was removed; `factory ledger repair` brings "
            "it back"
        )
    return gone


def _named(repository: Repository, state: State) -> set[str]:
    """Keys of everything that a state consists of."""
    snapshot = state.snapshot.signed
    roles = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
    named = {TIMESTAMP_FILE, key_of(snapshot.type, snapshot.version)}
    named |= {key_of(name, version) for name, version in roles.items()}
    for name in state.delegated:
        role = repository.role(state, name)
        named |= {target_key(info) for info in (role.signed.targets.values() if role else ())}
    return named
