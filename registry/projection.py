"""What follows the ledger: MLflow's aliases and the channel, brought to what the ledger says.

A decision is written to the ledger, then to the aliases, then to the channel, which is signed with the ledger's heads.
So a head that the channel holds proves that all decisions up to it were carried out, and whatever a kill left undone is
found by comparing heads, without starting MLflow.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.errors import CheckFailed, FactoryError, Unavailable
from registry import decisions
from registry.catalog import PRODUCTION, RELEASES, Catalog, adapter_model
from registry.chain import Finding, Head
from registry.channel import Channel, Publication
from registry.decisions import BASE, Row, Served
from registry.ledger import Ledger


@dataclass(frozen=True)
class Registry:
    """The three places that a promotion writes to, in this order."""

    ledger: Ledger
    catalog: Catalog
    channel: Channel


@dataclass(frozen=True)
class _Projection:
    """What the channel does not show yet: the base release, features for a base release; `heads`: the ledger's."""

    current: Row
    heads: dict[str, Head]
    base_behind: bool
    behind: list[Served]

    @property
    def lines(self) -> list[str]:
        """The decisions that are not shown, a line each."""
        rows = [*([self.current] if self.base_behind else []), *(one.follows for one in self.behind)]
        return [f"{row.feature} {row.version}: {row.action}" for row in rows]


def unfinished(registry: Registry) -> list[str]:
    """The decisions that the channel does not show yet, a line each: what `repair` would bring up to date.

    Raises:
        CheckFailed: the channel follows a decision that the ledger does not have.
    """
    found = _compare(registry)
    return found.lines if found else []


def repair(registry: Registry, everything: bool = False) -> list[str]:
    """Bring aliases and channel to what the ledger says; returns a line for each thing that was put right.

    With `everything`, aliases and packages are compared even where the channel follows the last decision, so that what
    was changed by hand is put back.

    Raises:
        CheckFailed: the channel follows a decision that the ledger does not have.
        FactoryError: a package that the ledger names is missing or damaged.
    """
    found = _compare(registry, everything)
    if found is None:
        return []
    done = found.lines
    move_all = found.base_behind or everything
    moved = {one.production.feature for one in found.behind}
    if move_all or moved:
        for model, wanted in _wanted_aliases(registry, found.current, None if move_all else moved).items():
            changed = registry.catalog.set_production_aliases(model, wanted)
            done += changed if everything else []
    written = registry.channel.publish(_publications(registry, found, everything), found.heads, thorough=everything)
    expected = moved | ({BASE} if found.base_behind else set())
    done += [f"channel: {target} was put back" for target in written if target.split("/")[0] not in expected]
    return done


def follow(registry: Registry, row: Row) -> None:
    """Let aliases and channel follow a decision that was just written.

    Raises:
        FactoryError: as `repair`, or the system refuses something; the decision stands all the same.
    """
    try:
        repair(registry)
    except (FactoryError, OSError) as error:
        kind = type(error) if isinstance(error, FactoryError) else Unavailable
        raise kind(
            f"decision {row.number} is recorded; aliases and channel follow it at the next command: {error}"
        ) from None


def misplaced_aliases(registry: Registry) -> list[str]:
    """A line for each alias in MLflow that is not where the ledger says."""
    current = registry.ledger.current_release()
    wanted = _wanted_aliases(registry, current, None) if current else {}
    return [line for model, aliases in wanted.items() for line in registry.catalog.off_aliases(model, aliases)]


def verify(registry: Registry) -> list[Finding]:
    """What is wrong with the ledger, as `wrong_rows`, and with the channel's state that anchors it."""
    setback = registry.channel.setback()
    return wrong_rows(registry) + ([Finding("channel", 0, setback)] if setback else [])


def wrong_rows(registry: Registry) -> list[Finding]:
    """What is wrong with the ledger: in itself, and against rows that the channel was seen to be signed with."""
    registry.channel.anchored_heads()  # what others have published is seen by this
    return registry.ledger.verify(registry.channel.seen_heads())


def repair_from_ledger(registry: Registry) -> list[str]:
    """Put aliases and channel right, whatever was done to them, from a ledger that is whole; as `repair`.

    Raises:
        CheckFailed: the ledger is not whole, so that nothing may be put right from it.
    """
    findings = wrong_rows(registry)
    if findings:
        raise CheckFailed(
            f"{findings[0]}; nothing is put right from such a ledger: bring it back from its backup "
            "(`factory ledger verify` lists everything)"
        )
    return repair(registry, everything=True)


def _compare(registry: Registry, everything: bool = False) -> _Projection | None:
    """What is behind; None if everything is up to date, or if nothing was ever promoted."""
    heads, anchored = registry.ledger.heads(), registry.channel.anchored_heads()
    seen = registry.channel.seen_heads()
    changed, unlike = (_differing(heads, kept) for kept in (anchored, seen))
    wanted = {*changed, *unlike, BASE} if changed or unlike or everything else set()
    rows = {feature: registry.ledger.rows(feature) for feature in wanted}
    for feature in unlike:
        _require_seen(feature, rows[feature], seen.get(feature))
    current = decisions.last_move(rows.get(BASE, []))
    if current is None:
        return None
    served = [one for feature in changed if feature != BASE for one in decisions.served(rows[feature])]
    behind = [one for one in served if _is_behind(registry, one.follows)]
    return _Projection(current, heads, BASE in changed and _is_behind(registry, current), behind)


def _differing(heads: Mapping[str, Head], kept: Mapping[str, Head]) -> list[str]:
    return sorted(feature for feature in heads.keys() | kept.keys() if heads.get(feature) != kept.get(feature))


def _require_seen(feature: str, rows: Sequence[Row], seen: Head | None) -> None:
    """The ledger has the row that the channel was last seen to be signed with."""
    if seen and (seen.number > len(rows) or rows[seen.number - 1].hash != seen.hash):
        raise CheckFailed(
            f"{feature}: the channel follows decision {seen.number}, which the ledger does not have; "
            "bring the ledger back from its backup"
        )


def _wanted_aliases(registry: Registry, current: Row, only: Collection[str] | None) -> dict[str, dict[str, int]]:
    """By registered model, the aliases that the ledger asks for; of the named features, or of everything."""
    serving = registry.ledger.serving()
    features = sorted(serving.keys() - {BASE} if only is None else only)
    wanted = {adapter_model(name): {_alias(row, current): row.version for row in serving[name]} for name in features}
    return wanted if only is not None else wanted | {RELEASES: {PRODUCTION: current.version}}


def _is_behind(registry: Registry, row: Row) -> bool:
    pointer = registry.channel.pointer(row.feature, row.base_release)
    return pointer is None or pointer.row != row.hash


def _publications(registry: Registry, found: _Projection, everything: bool) -> list[Publication]:
    publications = []
    if found.base_behind or everything:
        release = registry.catalog.release_folder(registry.catalog.release(found.current.base_release))
        publications.append(Publication(found.current, found.current, release))
    wanted = found.behind
    if everything:
        wanted = [one for rows in _by_feature(registry.ledger.rows()).values() for one in decisions.served(rows)]
    for one in wanted:
        rollout = (one.rollout, _package(registry, one.rollout)) if one.rollout else None
        publications.append(Publication(one.follows, one.production, _package(registry, one.production), rollout))
    return publications


def _package(registry: Registry, row: Row) -> Path:
    return registry.catalog.package_folder(registry.catalog.version(row.feature, row.version))


def _by_feature(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.feature != BASE:
            found.setdefault(row.feature, []).append(row)
    return found


def _alias(row: Row, current: Row) -> str:
    of_current = row.base_release == current.base_release
    return PRODUCTION if of_current else f"{PRODUCTION}-{row.base_release[:12]}"
