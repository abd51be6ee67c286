"""Turn rows that people have (JSONL or CSV with fields of any name) into records."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.records import Quarantined, Record
from infra.errors import FactoryError

_CSV_FIELD_LIMIT = 1 << 24

Row = dict[str, Any]
# Line number, the row's fields or the reason why it has none, and its raw text.
Rows = Iterator[tuple[int, Row | str, str]]


def convert(
    path: Path,
    *,
    use_case: str | None = None,
    input_field: str = "input",
    target_field: str = "target",
    source: str,
    license: str,
) -> tuple[list[Record], list[Quarantined]]:
    """Read a `.jsonl` or `.csv` file into records; every row that is none is returned with its reason.

    A row's own `id`, `use_case`, `source` and `license` count where it has them, the arguments elsewhere. A row without
    an id gets one from the digest of its use case and input, so that the same file read twice gives the same records.

    Raises:
        FactoryError: no such file, or one that is neither JSONL nor CSV by its name.
    """
    if not path.is_file():
        raise FactoryError(f"{path}: no such file")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise FactoryError(f"{path}: can read {' and '.join(_READERS)} files; convert it to one of them")
    defaults = {"use_case": use_case, "source": source, "license": license}
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    records: dict[str, Record] = {}
    refused: list[Quarantined] = []
    for number, row, raw in read(text):
        where = f"{path.name}:{number}"
        try:
            record = _record(row, input_field, target_field, defaults)
        except ValidationError as error:
            reasons = (f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors())
            refused.append(Quarantined(where, "; ".join(reasons), raw))
        except ValueError as error:
            refused.append(Quarantined(where, str(error), raw))
        else:
            if record.id in records:
                refused.append(Quarantined(where, f"id {record.id!r} occurs twice", raw))
            else:
                records[record.id] = record
    return list(records.values()), refused


def _record(row: Row | str, input_field: str, target_field: str, defaults: dict[str, str | None]) -> Record:
    if isinstance(row, str):
        raise ValueError(row)
    if input_field not in row:
        raise ValueError(f"no field {input_field!r}; the row has {', '.join(sorted(row)) or 'none'}")
    values = {name: row.get(name) or default for name, default in defaults.items()}
    values |= {"input": row[input_field], "target": row.get(target_field) or None}
    made = hashlib.sha256(f"{values['use_case']}\n{values['input']}".encode()).hexdigest()[:16]
    values["id"] = str(row.get("id") or f"{values['use_case']}-{made}")
    return Record.model_validate(values)


def _jsonl_rows(text: str) -> Rows:
    # Not splitlines(): JSON strings may hold U+2028 and other separators that it would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            yield number, f"not JSON: {message}", line
        else:
            yield number, row if isinstance(row, dict) else f"not an object but {type(row).__name__}", line


def _csv_rows(text: str) -> Rows:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, f"not CSV: {error}", "\n".join(text.splitlines()[start - 1 : reader.line_num])
            continue
        if not any(cells):
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            yield start, f"{len(cells)} columns where the header has {len(header)}", ",".join(cells)
        else:
            yield start, dict(zip(header, cells, strict=True)), ",".join(cells)


_READERS: dict[str, Callable[[str], Rows]] = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
