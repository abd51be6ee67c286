"""Features by base releases: which version serves each cell, and the holes. Pure functions over ledger rows.

Devices update at different times, so every base release that was ever shipped keeps its own production version of each
feature; a hole is a feature that devices with that release do without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry import decisions
from registry.decisions import BASE, Row

_SHOWN_OF_ROLLOUT = {"feature", "base_release", "version", "share"}


@dataclass(frozen=True)
class Matrix:
    """`releases` are the rows that last made each base release current, the current one last; `cells[feature][release]`
    is the row that put the version there, `rollouts` the last step of each rollout that is under way beside one."""

    releases: Sequence[Row]
    cells: Mapping[str, Mapping[str, Row]]
    rollouts: Sequence[Row] = ()

    @property
    def holes(self) -> list[tuple[str, str]]:
        """Pairs of feature and base release that no version serves."""
        return [
            (feature, release.base_release)
            for feature, served in self.cells.items()
            for release in self.releases
            if release.base_release not in served
        ]

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory registry matrix --json`."""
        return {
            "releases": [
                {
                    "base_release": release.base_release,
                    "version": release.version,
                    "since": release.time,
                    "current": release is self.releases[-1],
                }
                for release in self.releases
            ],
            "features": [
                {"feature": feature, "versions": {release: row.version for release, row in served.items()}}
                for feature, served in self.cells.items()
            ],
            "rollouts": [row.model_dump(mode="json", include=_SHOWN_OF_ROLLOUT) for row in self.rollouts],
            "holes": [{"feature": feature, "base_release": release} for feature, release in self.holes],
        }


def matrix(serving: Mapping[str, Sequence[Row]], features: Sequence[str], rollouts: Sequence[Row] = ()) -> Matrix:
    """The matrix of `features`; `serving` is what `Ledger.serving` gives, `rollouts` what `Ledger.rollouts` does."""
    releases = serving.get(BASE, [])
    cells = {feature: {row.base_release: row for row in serving.get(feature, [])} for feature in features}
    return Matrix(releases, cells, [row for row in rollouts if row.feature in cells])


def until(rows: Sequence[Row], time: str) -> list[Row]:
    """The rows that were written by a time (UTC, ISO 8601 with an offset, as rows have it)."""
    return [row for row in rows if row.time <= time]


def in_production(rows: Sequence[Row]) -> list[Row]:
    """The row that put the production version there, for each base release in the order in which they came up."""
    found = (decisions.production(rows, release) for release in decisions.releases(rows))
    return [row for row in found if row is not None]
