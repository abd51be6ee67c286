"""Decisions about versions, and what a feature's decisions mean together: in production, rejected, held, passed.

Pure functions over ledger rows in the order of their numbers. A row speaks of one version and carries its keys:

| action | version | replaced |
|---|---|---|
| promote | goes (or stays, with new evidence) in production | what was there before |
| roll back | goes back into production | what is taken out, and held from now on |
| release hold | may be promoted again | |
| accept | passed its gates under this evaluation key, and waits | |
| reject | failed its gates under this evaluation key | |
| request | somebody wants it in production, and the recipe asks for a second person | what is there |
| approve | the second person agrees; its promotion, or rollout, follows | what is there |
| rollout | goes to a share of the devices, beside what is in production | |
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.canonical import canonical_json, digest

Action = Literal["accept", "reject", "request", "approve", "promote", "roll back", "release hold", "rollout"]
# The actions that put a version in production.
MOVES = ("promote", "roll back")
# The reserved feature whose promotions say which base release is current.
BASE = "base"
# `previous` of a feature's first row.
NO_ROW = "0" * 64

_FEATURE = r"^[a-z][a-z0-9-]{0,62}$"
_SHA256 = r"^[0-9a-f]{64}$"
_JSON_COLUMNS = ("lineage", "evaluation", "overruled")
# Columns of later migrations. They are left out of the hash where a row has none, so that older rows keep theirs.
_ADDED_LATER = ("evaluation", "champion")


class Decision(BaseModel):
    """What somebody decided about one version.

    `lineage` holds the version's build keys, `evaluation` the keys that it was judged by and `evaluation_key` their
    digest (None for `base`), `package` the digest of what ships, `evidence` the digest of its gate report, `champion`
    the package that it was tested against (None if nothing was in production), `overruled` the failed gates that a
    forced promotion names, `share` the fraction of devices in a staged rollout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str = Field(pattern=_FEATURE)
    base_release: str = Field(pattern=_SHA256)
    action: Action
    version: int = Field(gt=0)
    lineage: dict[str, str] = {}
    evaluation: dict[str, str] | None = None
    evaluation_key: str | None = Field(default=None, pattern=_SHA256)
    package: str = Field(pattern=_SHA256)
    replaced: int | None = Field(default=None, gt=0)
    actor: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)
    evidence: str | None = Field(default=None, pattern=_SHA256)
    champion: str | None = Field(default=None, pattern=_SHA256)
    overruled: tuple[str, ...] = ()
    share: float | None = Field(default=None, gt=0, le=1)

    @property
    def lineage_key(self) -> str:
        """The key of the lineage, as `adapters.lineage.Lineage.key`."""
        return digest(self.lineage)


class Row(Decision):
    """A decision in the ledger. `time` is UTC, ISO 8601; `previous` is the hash of the feature's row before."""

    number: int = Field(gt=0)
    time: str
    previous: str = Field(pattern=_SHA256)
    hash: str = Field(pattern=_SHA256)

    def computed_hash(self) -> str:
        """SHA-256 over everything in the row but its hash; `previous` makes rows a chain."""
        content = self.model_dump(mode="json", exclude={"hash"})
        return digest({name: value for name, value in content.items() if value is not None or name not in _ADDED_LATER})

    def to_columns(self) -> dict[str, Any]:
        """The row as the database holds it, with `lineage_key`."""
        columns = self.model_dump(mode="json") | {"lineage_key": self.lineage_key}
        texts = {name: canonical_json(columns[name]).decode() for name in _JSON_COLUMNS if columns[name] is not None}
        return columns | texts

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> "Row":
        """Read what `to_columns` wrote.

        Raises:
            ValueError: the columns are none of ours.
        """
        values = {name: columns[name] for name in cls.model_fields}
        texts = {name: json.loads(values[name]) for name in _JSON_COLUMNS if values[name] is not None}
        return cls.model_validate(values | texts)


def production(rows: Iterable[Row], base_release: str) -> Row | None:
    """The decision that put the present production version for a base release there, or None."""
    return last_move(row for row in rows if row.base_release == base_release)


def last_move(rows: Iterable[Row]) -> Row | None:
    """The last decision that put a version in production, for whichever base release, or None."""
    moves = [row for row in rows if row.action in MOVES]
    return moves[-1] if moves else None


@dataclass(frozen=True)
class Served:
    """What devices with one base release get of a feature: what is in production, and what is rolled out beside it.

    `follows` is the last row that had a say in it.
    """

    follows: Row
    production: Row
    rollout: Row | None = None


def served(rows: Sequence[Row]) -> list[Served]:
    """What devices get of a feature whose rows these are, for each base release that it was ever promoted for."""
    found = (served_for(rows, release) for release in releases(rows))
    return [one for one in found if one is not None]


def releases(rows: Iterable[Row]) -> list[str]:
    """The base releases that a feature's rows speak of, in the order in which they came up."""
    return list(dict.fromkeys(row.base_release for row in rows))


def rollouts(rows: Sequence[Row]) -> list[Row]:
    """The last step of each rollout of a feature that is under way, one for a base release."""
    return [one.rollout for one in served(rows) if one.rollout is not None]


def staged(rows: Sequence[Row], base_release: str) -> Row | None:
    """The last step of the rollout that is under way for a base release, or None."""
    found = served_for(rows, base_release)
    return found.rollout if found else None


def served_for(rows: Sequence[Row], base_release: str) -> Served | None:
    """What devices with a base release get of a feature whose rows these are; None if nothing was ever promoted.

    A rollout ends when another version goes into production, or when it is rolled back; new evidence leaves it.
    """
    found: Served | None = None
    for row in rows:
        if row.base_release != base_release:
            continue
        if row.action == "rollout" and found is not None:
            found = Served(row, found.production, row)
        elif row.action in MOVES:
            stays = found is not None and row.action == "promote" and row.version == found.production.version
            found = Served(row, row, found.rollout if found and stays else None)
    return found


def champion(rows: Sequence[Row], base_release: str, version: int | None) -> Row | None:
    """What a version must be tested against: the production version for its base release, else the last for any.

    After a base update that is the version that serves the former release, on that release: what users have today.
    None if nothing was ever in production, or if it is the version itself.
    """
    serving = production(rows, base_release) or last_move(rows)
    return serving if serving is not None and serving.version != version else None


def rejection(rows: Iterable[Row], lineage_key: str, evaluation_key: str) -> Row | None:
    """The decision that what these keys build has failed its gates, or None."""
    for row in rows:
        if row.action == "reject" and (row.lineage_key, row.evaluation_key) == (lineage_key, evaluation_key):
            return row
    return None


def verdict(rows: Sequence[Row], lineage_key: str) -> Row | None:
    """The last row about what these keys built, of the version in production if it is one; it carries its verdict."""
    about = [row for row in rows if row.lineage_key == lineage_key and row.evidence is not None]
    if not about:
        return None
    serving = production(rows, about[-1].base_release)
    in_production = [row for row in about if serving is not None and row.version == serving.version]
    return (in_production or about)[-1]


def has_passed(row: Row) -> bool:
    """Whether the version of a row that carries its verdict had passed every gate by then."""
    return row.action != "reject" and not row.overruled


def holds(rows: Sequence[Row], base_release: str) -> dict[int, Row]:
    """Versions that a rollback took out and that nothing may bring back by itself, with the row of that rollback.

    A version is held until its hold is released or somebody promotes it or rolls back to it. It is the version and so
    its lineage that is held: another evaluation key does not clear it, another lineage key is another version.
    """
    held: dict[int, Row] = {}
    for row in rows:
        if row.base_release != base_release:
            continue
        if row.action in ("promote", "roll back", "release hold"):
            held.pop(row.version, None)
        if row.action == "roll back" and row.replaced is not None:
            held[row.replaced] = row
    return held


def good_versions(rows: Sequence[Row], base_release: str) -> list[int]:
    """Versions that were in production for a base release and were not rolled back, the present one last."""
    stack: list[int] = []
    for row in rows:
        if row.base_release != base_release or row.action not in MOVES:
            continue
        if row.action == "roll back" and row.version in stack:
            del stack[stack.index(row.version) + 1 :]
        else:
            stack = [version for version in stack if version != row.version] + [row.version]
    return stack


def lineage_key_of(rows: Iterable[Row], version: int) -> str | None:
    """The lineage key of a version that the ledger speaks of, or None."""
    return next((row.lineage_key for row in rows if row.version == version), None)
