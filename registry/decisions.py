"""Decisions about versions, and what a feature's decisions mean together: in production, rejected, held.

Pure functions over ledger rows in the order of their numbers. A row speaks of one version and carries its keys:

| action | version | replaced |
|---|---|---|
| promote | goes (or stays, with new evidence) in production | what was there before |
| roll back | goes back into production | what is taken out, and held from now on |
| release hold | may be promoted again | |
| reject | failed its gates under this evaluation key | |
| request, approve, rollout | kept for approvals and staged rollouts | |
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.canonical import digest

Action = Literal["reject", "request", "approve", "promote", "roll back", "release hold", "rollout"]
# The actions that put a version in production.
MOVES = ("promote", "roll back")
# The reserved feature whose promotions say which base release is current.
BASE = "base"
# `previous` of a feature's first row.
NO_ROW = "0" * 64

_FEATURE = r"^[a-z][a-z0-9-]{0,62}$"
_SHA256 = r"^[0-9a-f]{64}$"


class Decision(BaseModel):
    """What somebody decided about one version.

    `lineage` holds the version's build keys, `evaluation_key` what it was judged by (None for `base`), `package` the
    digest of what ships, `evidence` the digest of its gate report, `overruled` the failed gates that a forced promotion
    names, `share` the fraction of devices in a staged rollout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str = Field(pattern=_FEATURE)
    base_release: str = Field(pattern=_SHA256)
    action: Action
    version: int = Field(gt=0)
    lineage: dict[str, str] = {}
    evaluation_key: str | None = Field(default=None, pattern=_SHA256)
    package: str = Field(pattern=_SHA256)
    replaced: int | None = Field(default=None, gt=0)
    actor: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)
    evidence: str | None = Field(default=None, pattern=_SHA256)
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
        return digest(self.model_dump(mode="json", exclude={"hash"}))


def production(rows: Iterable[Row], base_release: str) -> Row | None:
    """The decision that put the present production version for a base release there, or None."""
    return last_move(row for row in rows if row.base_release == base_release)


def last_move(rows: Iterable[Row]) -> Row | None:
    """The last decision that put a version in production, for whichever base release, or None."""
    moves = [row for row in rows if row.action in MOVES]
    return moves[-1] if moves else None


def rejection(rows: Iterable[Row], lineage_key: str, evaluation_key: str) -> Row | None:
    """The decision that what these keys build has failed its gates, or None."""
    for row in rows:
        if row.action == "reject" and (row.lineage_key, row.evaluation_key) == (lineage_key, evaluation_key):
            return row
    return None


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
