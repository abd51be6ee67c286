"""What follows the ledger: MLflow's aliases and the channel, brought to what the ledger says.

A decision is written to the ledger, then to the aliases, then to the channel, which is signed with the ledger's heads.
So a head that the channel holds proves that all decisions up to it were carried out, and whatever a kill left undone is
found by comparing heads, without starting MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.errors import CheckFailed
from registry import decisions
from registry.catalog import PRODUCTION, RELEASES, Catalog, adapter_model
from registry.channel import Channel, Publication
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
    heads = {feature: (of_feature[-1].number, of_feature[-1].hash) for feature, of_feature in rows.items()}
    anchored = registry.channel.anchored_heads()
    _require_anchored(rows, anchored)
    current = decisions.last_move(rows.get(BASE, []))
    if current is None or (heads == anchored and not everything):
        return []
    changed = {feature for feature, head in heads.items() if anchored.get(feature) != head}
    serving = {feature: _serving(of_feature) for feature, of_feature in rows.items() if feature != BASE}
    behind = [row for feature in sorted(changed - {BASE}) for row in serving[feature] if _is_behind(registry, row)]
    base_behind = BASE in changed and _is_behind(registry, current)
    moved = {row.feature for row in behind} | (serving.keys() if base_behind or everything else set())
    for feature in sorted(moved):
        wanted = {_alias(row, current): row.version for row in serving[feature]}
        registry.catalog.set_production_aliases(adapter_model(feature), wanted)
    publications = []
    if base_behind or everything:
        registry.catalog.set_production_aliases(RELEASES, {PRODUCTION: current.version})
        release = registry.catalog.release_folder(registry.catalog.release(current.base_release))
        publications.append(Publication(current, current, release))
    for row in behind:
        version = registry.catalog.version(row.feature, row.version)
        publications.append(Publication(row, row, registry.catalog.package_folder(version)))
    registry.channel.publish(publications, heads)
    return [f"{row.feature} {row.version}: {row.action}" for row in (*([current] if base_behind else []), *behind)]


def _require_anchored(rows: Mapping[str, Sequence[Row]], anchored: Mapping[str, tuple[int, str]]) -> None:
    """The ledger has every row that the channel was signed with."""
    for feature, (number, hash_) in anchored.items():
        of_feature = rows.get(feature, [])
        if number > len(of_feature) or of_feature[number - 1].hash != hash_:
            raise CheckFailed(
                f"{feature}: the channel follows decision {number}, which the ledger does not have; "
                "bring the ledger back from its backup"
            )


def _serving(rows: Sequence[Row]) -> list[Row]:
    """The production row for each base release that a feature was ever promoted for."""
    found = (decisions.production(rows, release) for release in dict.fromkeys(row.base_release for row in rows))
    return [row for row in found if row is not None]


def _is_behind(registry: Registry, row: Row) -> bool:
    pointer = registry.channel.pointer(row.feature, row.base_release)
    return pointer is None or pointer.row != row.hash


def _alias(row: Row, current: Row) -> str:
    of_current = row.base_release == current.base_release
    return PRODUCTION if of_current else f"{PRODUCTION}-{row.base_release[:12]}"
