"""What follows the ledger: MLflow's aliases and the channel, brought to what the ledger says.

A decision is written to the ledger, then to the aliases, then to the channel, whose pointers are written last and name
the ledger row that they follow. So a pointer that names the last row proves that the rest was done, and whatever a kill
left undone is found by comparing the two, without starting MLflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import CheckFailed
from registry import decisions
from registry.catalog import PRODUCTION, RELEASES, Catalog, adapter_model
from registry.channel import Channel
from registry.decisions import BASE, Row
from registry.ledger import Ledger


@dataclass(frozen=True)
class Registry:
    """The three places that a promotion writes to, in this order."""

    ledger: Ledger
    catalog: Catalog
    channel: Channel


def repair(registry: Registry, everything: bool = False) -> list[str]:
    """Bring aliases and channel to what the ledger says; returns a line for each feature that was behind.

    With `everything`, aliases are compared even where the channel is up to date, so that one moved by hand is put back.

    Raises:
        CheckFailed: the channel follows a decision that the ledger does not have.
        FactoryError: a package that the ledger names is missing or damaged.
    """
    rows: dict[str, list[Row]] = {}
    for row in registry.ledger.rows():
        rows.setdefault(row.feature, []).append(row)
    current = decisions.last_move(rows.pop(BASE, []))
    if current is None:
        return []
    serving = {feature: _serving(of_feature) for feature, of_feature in rows.items()}
    behind = [row for found in serving.values() for row in found if _is_behind(registry, row)]
    base_behind = _is_behind(registry, current)
    moved = {row.feature for row in behind} | (serving.keys() if base_behind or everything else set())
    for feature in sorted(moved):
        wanted = {_alias(row, current): row.version for row in serving[feature]}
        registry.catalog.set_production_aliases(adapter_model(feature), wanted)
    if base_behind or everything:
        registry.catalog.set_production_aliases(RELEASES, {PRODUCTION: current.version})
        release = registry.catalog.release_folder(registry.catalog.release(current.base_release))
        registry.channel.publish_release(release, current)
    for row in behind:
        version = registry.catalog.version(row.feature, row.version)
        registry.channel.publish_adapter(registry.catalog.package_folder(version), row)
    return [f"{row.feature} {row.version}: {row.action}" for row in (*([current] if base_behind else []), *behind)]


def _serving(rows: Sequence[Row]) -> list[Row]:
    """The production row for each base release that a feature was ever promoted for."""
    found = (decisions.production(rows, release) for release in dict.fromkeys(row.base_release for row in rows))
    return [row for row in found if row is not None]


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
