"""What a user has added to and removed from a feature's corpus, laid over the corpus that ships with it.

The overlay is two files in the feature's versioned data folder: `added.jsonl` (records) and `removed.txt` (one id a
line). `infra/dvc_data.py` writes it; it is read without DVC, because the plan reads it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.records import Quarantined, Record, read_records
from infra.dvc_data import ADDED, RECORDS, REMOVED


@dataclass(frozen=True)
class Overlay:
    """Records added by a user, ids removed by one, and rows of `added.jsonl` that are no records."""

    added: list[Record]
    removed: frozenset[str]
    refused: list[Quarantined]


def read_overlay(folder: Path) -> Overlay:
    """The overlay in a feature's data folder; an empty one if nothing was ever added or removed there."""
    if not folder.is_dir():
        return Overlay([], frozenset(), [])
    added, refused = read_records(folder / ADDED) if (folder / ADDED).is_file() else ([], [])
    lines = (folder / REMOVED).read_text("utf-8").split("\n") if (folder / REMOVED).is_file() else []
    return Overlay(added, frozenset(line for line in lines if line), refused)


def effective_records(corpus: Sequence[Record], added: Sequence[Record], removed: Collection[str]) -> list[Record]:
    """The records that a feature is made from: an added record takes the place of the corpus record of the same id,
    and a removed id is gone, wherever it came from. Corpus order first, then the new ones in theirs.
    """
    by_id = {record.id: record for record in corpus}
    by_id |= {record.id: record for record in added}
    return [record for record in by_id.values() if record.id not in removed]


@dataclass(frozen=True)
class Difference:
    """What differs between two versions of a feature's data: ids of records."""

    added: list[str]
    removed: list[str]
    changed: dict[str, list[str]]
    """Which fields differ, by id."""


def version_records(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The records of a version by id, as plain values: those that were effective when it was made. `files` are the
    version's, by name. A run keeps what it began with, so what was added or removed meanwhile counts over that.
    """
    lines = (line for name in (RECORDS, ADDED) for line in files.get(name, b"").split(b"\n") if line.strip())
    rows = {row["id"]: row for row in map(json.loads, lines)}
    removed = set(files.get(REMOVED, b"").decode("utf-8").split("\n"))
    return {one: row for one, row in rows.items() if one not in removed}


def difference(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> Difference:
    """What was added, removed and changed between two sets of records by id."""
    both = sorted(before.keys() & after.keys())
    return Difference(
        added=sorted(after.keys() - before.keys()),
        removed=sorted(before.keys() - after.keys()),
        changed={
            one: [name for name in after[one] if before[one].get(name) != after[one][name]]
            for one in both
            if before[one] != after[one]
        },
    )
