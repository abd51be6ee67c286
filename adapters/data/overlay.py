"""What a user has added to and removed from a feature's corpus, laid over the corpus that ships with it.

The overlay is two files in the feature's versioned data folder: `added.jsonl` (records) and `removed.txt` (one id a
line). `infra/dvc_data.py` writes it; it is read without DVC, because the plan reads it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.records import Quarantined, Record, read_records
from infra.dvc_data import ADDED, REMOVED


@dataclass(frozen=True)
class Overlay:
    """Records added by a user, ids removed by one, and rows of `added.jsonl` that are no records."""

    added: list[Record]
    removed: frozenset[str]
    refused: list[Quarantined]


def read_overlay(folder: Path) -> Overlay:
    """The overlay in a feature's data folder; an empty one if nothing was ever added or removed there."""
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
