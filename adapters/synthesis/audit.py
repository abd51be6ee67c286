"""The audit table: every candidate with its scores and its verdict, and how long such texts are kept.

A table holds what teachers made of people's texts. So it lies outside of the store, whose outputs never change: rows of
a record that is taken out of the data go, and so does every file that nobody wrote to for as long as settings say.
Columns: id, members (of a stack, the ids of its records), use_case, teacher, phrasing, number, text, target, tokens,
logprob, groundedness, score, agreement, rank, verdict, reasons (by filter), question (why people must decide).
"""

import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from infra.errors import FactoryError

TABLES = "tables"
DRAFTS = "drafts"
VERDICTS = ("chosen", "outvoted", "rejected", "queued")
_DAY = 86400.0


def write_audit(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    text, number, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    schema = pyarrow.schema(
        [("id", text), ("members", pyarrow.list_(text)), ("use_case", text), ("teacher", text)]
        + [(name, whole) for name in ("phrasing", "number")]
        + [(name, text) for name in ("text", "target")]
        + [("tokens", whole)]
        + [(name, number) for name in ("logprob", "groundedness", "score", "agreement", "rank")]
        + [("verdict", text), ("reasons", pyarrow.map_(text, text)), ("question", text)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [{**row, "reasons": list(row["reasons"].items())} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made, schema), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def read_audit(path: Path) -> list[dict[str, Any]]:
    """The rows of a table.

    Raises:
        FactoryError: it is none, or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise FactoryError(f"{path}: not an audit table: {error}; remove it") from None
    return [{**row, "reasons": dict(row["reasons"])} for row in rows]


def latest_audit(folder: Path) -> Path:
    """The newest table of a feature's folder.

    Raises:
        FactoryError: there is none.
    """
    tables = sorted((folder / TABLES).glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    if not tables:
        raise FactoryError(f"{folder}: no audit table; a run that synthesises writes one, and `audit_days` keeps it")
    return tables[-1]


def forget(folder: Path, ids: Collection[str]) -> int:
    """Take the candidates of some records, and of stacks that hold them, out of a feature's tables and drafts; returns
    how many rows went. Files stay as old as they are: which table is the newest and what expires is told by that.
    """
    gone, unwanted = 0, set(ids)
    for path in (folder / TABLES).glob("*.parquet"):
        rows = read_audit(path)
        kept = [row for row in rows if unwanted.isdisjoint({row["id"], *(row.get("members") or ())})]
        if len(kept) < len(rows):
            times = path.stat()
            write_audit(path, kept)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            gone += len(rows) - len(kept)
    for path in (folder / DRAFTS).glob("*.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        left = [line for line in lines if line.endswith(b"\n") and unwanted.isdisjoint(_about(json.loads(line)))]
        if len(left) < len(lines):
            times, written = path.stat(), path.with_suffix(".new")
            written.write_bytes(b"".join(left))
            os.utime(written, ns=(times.st_atime_ns, times.st_mtime_ns))
            written.replace(path)
            gone += len(lines) - len(left)
    return gone


def _about(draft: dict[str, Any]) -> set[str]:
    """The ids of the records that a draft is about."""
    return {draft["record"], *draft.get("members", ())}


def expire(folder: Path, days: float) -> int:
    """Remove the files of a feature's folder that nobody has written to for so many days; returns how many."""
    latest = time.time() - days * _DAY
    old = [path for path in folder.glob("*/*") if path.is_file() and path.stat().st_mtime < latest]
    for path in old:
        path.unlink()
    return len(old)
