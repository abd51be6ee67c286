"""Rows of tables: JSONL, JSON, CSV, TSV and Parquet. A row that cannot be read is told with its reason."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.data.decoding import decode, marked_encoding

_CSV_FIELD_LIMIT = 1 << 24
_DELIMITERS = ",;\t|"
_PARQUET_BATCH = 1024

Row = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A document: one text, without fields."""

    text: str


# Number of the line or message; its fields, its text, or the reason why it has neither; and what stood there. A reader
# of a file that is no text as a whole raises ValueError.
Rows = Iterator[tuple[int, Row | Text | str, str]]


def jsonl_rows(path: Path) -> Rows:
    """A row a line, read line by line: one line that is broken spoils no other."""
    with path.open("rb") as file:
        encoding = marked_encoding(file.read(4))
        file.seek(0)
        if encoding in (None, "utf-8-sig"):
            for number, line in enumerate(file, start=1):
                yield from _json_line(number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            return
        text = decode(file.read())
    # Not splitlines(): JSON strings may hold U+2028 and other separators that it would cut at.
    for number, line_text in enumerate(text.split("\n"), start=1):
        yield from _json_line(number, line_text.encode("utf-8", errors="surrogatepass"))


def json_rows(content: Any, text: str) -> Rows:
    """The rows of a JSON document that is an object, or a list of objects."""
    for number, row in enumerate(content if isinstance(content, list) else [content], start=1):
        raw = json.dumps(row, ensure_ascii=False) if isinstance(content, list) else text
        yield number, row if isinstance(row, dict) else f"not an object but {type(row).__name__}", raw


def parse_json(text: str) -> Any:
    """A JSON document.

    Raises:
        ValueError: it is none, is nested too deeply, or an object in it has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None


def csv_rows(path: Path) -> Rows:
    """The rows below a header. The delimiter is the one of `,;tab|` that the header has most of."""
    text = decode(path.read_bytes())
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    lines = io.StringIO(text, newline="").readlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, f"not CSV: {error}", "".join(lines[start - 1 : reader.line_num]).rstrip("\r\n")
            continue
        if not any(cells):
            continue
        raw = delimiter.join(cells)
        if header is None:
            header = [name.strip() for name in cells]
            repeated = [name for name, count in Counter(header).items() if count > 1]
        elif repeated:
            yield start, f"the header names column {repeated[0]!r} twice", raw
        elif len(cells) != len(header):
            yield start, f"{len(cells)} columns where the header has {len(header)}", raw
        else:
            yield start, dict(zip(header, cells, strict=True)), raw


def parquet_rows(path: Path) -> Rows:
    """The rows of a Parquet file, a batch at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for row, raw in _batch_rows(batch):
                    number += 1
                    yield number, row, raw or json.dumps(row, ensure_ascii=False, default=str)
    except (pyarrow.ArrowException, OSError) as error:
        yield number + 1, f"not Parquet: {str(error).splitlines()[0]}", readable(path.read_bytes())


def _batch_rows(batch: Any) -> Iterator[tuple[Row | str, str]]:
    """The rows of a batch. Where Python has no value for one (a time beyond the year 9999), that row has a reason and
    what stood there instead.
    """
    try:
        yield from [(row, "") for row in batch.to_pylist()]
        return
    except (OverflowError, ValueError):
        pass
    for place in range(batch.num_rows):
        one = batch.slice(place, 1)
        try:
            yield one.to_pylist()[0], ""
        except (OverflowError, ValueError) as error:
            yield f"a value that cannot be read: {error}", str(one)


def readable(content: bytes) -> str:
    """Bytes as they can be shown: what is not UTF-8 is escaped, nothing is left out."""
    return content.decode("utf-8", errors="backslashreplace")


def _json_line(number: int, line: bytes) -> Rows:
    line = line.rstrip(b"\r\n")
    if not line.strip():
        return
    raw = readable(line)
    try:
        row = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        yield number, f"not UTF-8: {error.reason} at byte {error.start}", raw
    except ValueError as error:
        yield number, str(error), raw
    else:
        yield number, row if isinstance(row, dict) else f"not an object but {type(row).__name__}", raw


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"key {counts.most_common(1)[0][0]!r} occurs twice")
    return row
