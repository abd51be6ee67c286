"""What follows the ledger: MLflow's aliases and the channel, brought to what the ledger says.

A decision is written to the ledger, then to the aliases, then to the channel, whose pointers are written last and name
the ledger row that they follow. So a pointer that names the last row proves that the rest was done, and whatever a kill
left undone is found by comparing the two, without starting MLflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import CheckFailed
from registry.anchors import anchored_heads
from registry.catalog import PRODUCTION, RELEASES, Catalog, adapter_model
from registry.chain import Finding
from registry.channel import Channel
from registry.decisions import BASE, Row
from registry.ledger import Ledger


@dataclass(frozen=True)
class Registry:
    """The three places that a promotion writes to, in this order."""

    ledger: Ledger
    catalog: Catalog
    channel: Channel


@dataclass(frozen=True)
class _Projection:
    """What should be shown, by feature and base release, and what of it the channel does not show yet."""

    current: Row
    serving: dict[str, list[Row]]
    base_behind: bool
    behind: list[Row]


def unfinished(registry: Registry) -> list[str]:
    """The decisions that the channel does not show yet, a line each: what `repair` would bring up to date.

    Raises:
        CheckFailed: the channel follows a decision that the ledger does not have.
    """
    found = _compare(registry)
    return [_line(row) for row in _undone(found)] if found else []


def repair(registry: Registry, everything: bool = False) -> list[str]:
    """Bring aliases and channel to what the ledger says; returns a line for each thing that was put right.

    With `everything`, aliases, pointers and packages are compared even where the channel follows the last decision, so
    that what was changed by hand is put back.

    Raises:
        CheckFailed: the channel follows a decision that the ledger does not have.
        FactoryError: a package that the ledger names is missing or damaged.
    """
    found = _compare(registry)
    if found is None:
        return []
    current, serving = found.current, found.serving
    done = [_line(row) for row in _undone(found)]
    moved = {row.feature for row in found.behind} | (serving.keys() if found.base_behind or everything else set())
    for feature in sorted(moved):
        wanted = {_alias(row, current): row.version for row in serving[feature]}
        changed = registry.catalog.set_production_aliases(adapter_model(feature), wanted)
        done += changed if everything else []
    if found.base_behind or everything:
        changed = registry.catalog.set_production_aliases(RELEASES, {PRODUCTION: current.version})
        done += changed if everything else []
        release = registry.catalog.release_folder(registry.catalog.release(current.base_release))
        registry.channel.publish_release(release, current)
    for row in (row for rows in serving.values() for row in rows) if everything else found.behind:
        before = registry.channel.pointer(row.feature, row.base_release)
        version = registry.catalog.version(row.feature, row.version)
        registry.channel.publish_adapter(registry.catalog.package_folder(version), row)
        if row not in found.behind and registry.channel.pointer(row.feature, row.base_release) != before:
            done.append(f"{row.feature}: pointer for base release {row.base_release[:12]}")
    return done


def verify(registry: Registry) -> list[Finding]:
    """What is wrong with the ledger: in itself, and against the rows that the channel has followed."""
    return registry.ledger.verify(anchored_heads(registry.channel))


def repair_from_ledger(registry: Registry) -> list[str]:
    """Put aliases and channel right, whatever was done to them, from a ledger that is whole; as `repair`.

    Raises:
        CheckFailed: the ledger is not whole, so that nothing may be put right from it.
    """
    findings = verify(registry)
    if findings:
        raise CheckFailed(
            f"{findings[0]}; nothing is put right from such a ledger: bring it back from its backup "
            "(`factory ledger verify` lists everything)"
        )
    return repair(registry, everything=True)


def _compare(registry: Registry) -> _Projection | None:
    serving = registry.ledger.serving()
    releases = serving.pop(BASE, [])
    if not releases:
        return None
    current = releases[-1]
    behind = [row for rows in serving.values() for row in rows if _is_behind(registry, row)]
    return _Projection(current, serving, _is_behind(registry, current), behind)


def _undone(found: _Projection) -> Sequence[Row]:
    return [*([found.current] if found.base_behind else []), *found.behind]


def _line(row: Row) -> str:
    return f"{row.feature} {row.version}: {row.action}"


def _is_behind(registry: Registry, row: Row) -> bool:
    pointer = registry.channel.pointer(row.feature, row.base_release)
    if pointer is not None and pointer.number >= row.number and pointer.row != row.hash:
        raise CheckFailed(
            f"{row.feature}: the channel follows decision {pointer.number}, which the ledger does not have; "
            "bring the ledger back from its backup"
        )
    return pointer is None or pointer.row != row.hash


def _alias(row: Row, current: Row) -> str:
    of_current = row.base_release == current.base_release
    return PRODUCTION if of_current else f"{PRODUCTION}-{row.base_release[:12]}"
