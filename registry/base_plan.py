"""The plan for the base release: whether the current one is what its base model, recipe and code would give now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapters.lineage import differences
from infra.canonical import digest
from registry import decisions
from registry.decisions import Row
from registry.plan import Reason


@dataclass(frozen=True)
class BasePlan:
    """State of the base release; `key` is the key that a release would have now, None before any base is known.

    `cost_seconds` and `blocked_by` are as in a feature's plan.
    """

    state: Literal["missing", "fresh", "stale", "rejected"]
    key: str | None
    version: int | None = None
    reasons: tuple[Reason, ...] = ()
    cost_seconds: float | None = None
    blocked_by: str | None = None

    @property
    def needs_work(self) -> bool:
        """Whether a run would make a base release."""
        return self.state in ("missing", "stale")

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory plan --json`."""
        return {
            "state": self.state,
            "key": self.key,
            "version": self.version,
            "reasons": [reason._asdict() for reason in self.reasons],
            "cost_seconds": None if self.cost_seconds is None else round(self.cost_seconds, 1),
            "blocked_by": self.blocked_by,
        }


def plan_base(lineage: Mapping[str, str] | None, rows: Sequence[Row]) -> BasePlan:
    """The plan, given the release lineage that holds now and the rows of the feature `base`."""
    if lineage is None:
        return BasePlan("missing", None)
    key = digest(dict(lineage))
    current = decisions.last_move(rows)
    version = current.version if current else None
    if current is not None and current.base_release == key:
        return BasePlan("fresh", key, version)
    reasons = tuple(Reason(*found) for found in differences(current.lineage, dict(lineage))) if current else ()
    for row in rows:
        if row.action == "reject" and row.base_release == key:
            why = f"decision {row.number}: {row.reason}; features are built for the current release"
            return BasePlan("rejected", key, version, reasons, blocked_by=why)
    return BasePlan("stale" if current else "missing", key, version, reasons)
