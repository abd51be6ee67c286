"""Turn what people have into records: tables with fields of any name, mails, chat exports, texts, folders of them."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters.data.chat import chat_rows, is_chat
from adapters.data.decoding import decode
from adapters.data.mail import eml_rows, html_text, mbox_rows
from adapters.data.rows import Row, Rows, Text, csv_rows, json_rows, jsonl_rows, parquet_rows, parse_json, readable
from adapters.records import Quarantined, Record
from infra.errors import FactoryError


def convert(
    path: Path,
    *,
    use_case: str | None = None,
    input_field: str = "input",
    target_field: str = "target",
    source: str,
    license: str,
) -> tuple[list[Record], list[Quarantined]]:
    """Read a file, or every file below a folder, into records; each row that is none is returned with its reason.

    Tables (`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`) have the named fields. Mails (`.eml`, `.mbox`), chat exports
    (`.json`) and texts (`.txt`, `.md`, `.html`) give inputs without targets.

    A row's own `id`, `use_case`, `source` and `license` count where it has them, the arguments elsewhere. A row without
    an id gets one from the digest of its use case and input, so that the same file read twice gives the same records.

    Raises:
        FactoryError: no such file, or one whose name ends in none of the above.
    """
    if not path.exists():
        raise FactoryError(f"{path}: no such file")
    if path.is_file() and path.suffix.lower() not in _READERS:
        raise FactoryError(f"{path}: can read {', '.join(_READERS)} and folders; convert it to one of them")
    defaults = {"use_case": use_case, "source": source, "license": license}
    records: dict[str, Record] = {}
    refused: list[Quarantined] = []
    for where, row, raw in _rows(path):
        try:
            record = _record(row, input_field, target_field, defaults)
        except ValidationError as error:
            reasons = (f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors())
            refused.append(_refused(where, "; ".join(reasons), raw))
        except ValueError as error:
            refused.append(_refused(where, str(error), raw))
        else:
            if record.id in records:
                refused.append(_refused(where, f"id {record.id!r} occurs twice", raw))
            else:
                records[record.id] = record
    return list(records.values()), refused


def _refused(where: str, reason: str, raw: str) -> Quarantined:
    """A refusal that can be printed: JSON may hold halves of characters, and the names of files may, too."""
    return Quarantined(*(readable(text.encode("utf-8", "backslashreplace")) for text in (where, reason, raw)))


def _rows(path: Path) -> Iterator[tuple[str, Row | Text | str, str]]:
    """The rows of a file, or of all files below a folder in order of their names."""
    if path.is_file():
        found = [path]
    else:
        below = path.rglob("*")
        hidden = (file for file in below if not any(p.startswith(".") for p in file.relative_to(path).parts))
        found = sorted(file for file in hidden if file.is_file())
        if not found:
            raise FactoryError(f"{path}: the folder holds no file")
    for file in found:
        name = file.name if file == path else file.relative_to(path).as_posix()
        read = _READERS.get(file.suffix.lower())
        if read is None:
            yield f"{name}:1", f"not one of {', '.join(_READERS)}", ""
            continue
        count = 0
        try:
            for number, row, raw in read(file):
                count += 1
                yield f"{name}:{number}", row, raw
        except ValueError as error:
            yield f"{name}:1", str(error), readable(file.read_bytes())
        else:
            if count == 0:
                yield f"{name}:1", "the file holds no row", ""


def _record(row: Row | Text | str, input_field: str, target_field: str, defaults: dict[str, str | None]) -> Record:
    if isinstance(row, str):
        raise ValueError(row)
    if isinstance(row, Text):
        row = {input_field: row.text}
    if input_field not in row:
        raise ValueError(f"no field {input_field!r}; the row has {', '.join(sorted(map(str, row))) or 'none'}")
    values: dict[str, Any] = {name: row.get(name) or default for name, default in defaults.items()}
    values |= {"input": row[input_field], "target": row.get(target_field) or None}
    texts = [values["input"], *(values["target"] if isinstance(values["target"], list) else [values["target"]])]
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise ValueError("the text holds a zero character: it was decoded wrongly or is binary")
    made = hashlib.sha256(f"{values['use_case']}\n{values['input']}".encode()).hexdigest()[:16]
    values["id"] = str(row.get("id") or f"{values['use_case']}-{made}")
    return Record.model_validate(values)


def _json(path: Path) -> Rows:
    """A chat export, or rows in one JSON document."""
    text = decode(path.read_bytes())
    document = parse_json(text)
    yield from chat_rows(document) if is_chat(document) else json_rows(document, text)


def _text(path: Path) -> Rows:
    content = path.read_bytes()
    text = decode(content)
    if path.suffix.lower() in (".html", ".htm"):
        text = html_text(text)
    yield 1, Text(text.replace("\r\n", "\n")), readable(content)


Reader = Callable[[Path], Rows]
_READERS: dict[str, Reader] = {
    ".jsonl": jsonl_rows,
    ".json": _json,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
    ".eml": eml_rows,
    ".mbox": mbox_rows,
    ".txt": _text,
    ".md": _text,
    ".html": _text,
    ".htm": _text,
}


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Every text in a file, or in all files below a folder, with the place where it stands.

    Raises:
        FactoryError: no such file, or a file that cannot be read: an evaluation text must not be passed over.
    """
    if not path.exists():
        raise FactoryError(f"{path}: no such file")
    for where, row, _ in _rows(path):
        if isinstance(row, str):
            raise FactoryError(f"{path.parent if path.is_file() else path}: {where}: {row}")
        yield from ((where, text) for text in ([row.text] if isinstance(row, Text) else strings_in(row)))


def strings_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, however deep it lies; names of fields are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_in(inner)
