"""The record: one example of one feature's use case, and what a set of records means for keys and splits."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from infra.canonical import canonical_json

# Ids are written a line each, and are named in commands.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Record(BaseModel):
    """One row of a feature's data. `target` is absent where synthesis is to make one; a list holds equal references."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    id: str = Field(min_length=1, max_length=200)
    use_case: str = Field(min_length=1)
    input: str = Field(min_length=1)
    target: str | list[str] | None = None
    source: str = Field(min_length=1)
    license: str = Field(min_length=1)

    @field_validator("id")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        if _CONTROL.search(value):
            raise ValueError("holds a control character")
        return value

    @property
    def targets(self) -> list[str]:
        """The references: none, one or several."""
        if self.target is None:
            return []
        return [self.target] if isinstance(self.target, str) else list(self.target)


@dataclass(frozen=True)
class Quarantined:
    """A row that was refused: where it stood, why, and the row itself, so that nothing is lost."""

    where: str
    reason: str
    row: str


def parse_records(lines: Iterable[str], where: str) -> tuple[list[Record], list[Quarantined]]:
    """Read JSON lines into records; every row that is not a record is returned with its reason."""
    records: list[Record] = []
    refused: list[Quarantined] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{where}:{number}"
        try:
            record = _read(line)
        except json.JSONDecodeError as error:
            refused.append(Quarantined(place, f"not JSON: {error.msg} at column {error.colno}", line))
        except ValidationError as error:
            reasons = (f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors())
            refused.append(Quarantined(place, "; ".join(reasons), line))
        except (ValueError, RecursionError) as error:
            refused.append(Quarantined(place, f"not readable: {error}", line))
        else:
            if record.id in seen:
                refused.append(Quarantined(place, f"id {record.id!r} occurs twice", line))
            else:
                seen.add(record.id)
                records.append(record)
    return records, refused


def _read(line: str) -> Record:
    """The record in a line, by the fastest way; what that refuses is read by `json`, whose errors say where."""
    try:
        return Record.model_validate_json(line)
    except ValidationError:
        return Record.model_validate(json.loads(line))


def read_records(path: Path) -> tuple[list[Record], list[Quarantined]]:
    """Read a JSONL file of records; bytes that are not UTF-8 make their own row no JSON, and spoil no other."""
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        return parse_records(file, path.name)


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL in canonical form, sorted by id, so that equal sets are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=lambda record: record.id)
    path.write_bytes(b"".join(canonical_json(record.model_dump()) + b"\n" for record in ordered))


def digest_records(records: Iterable[Record]) -> str:
    """Digest of a set of records, whatever their order: that of the list of them, sorted by their canonical form."""
    ordered = sorted(canonical_json(record.model_dump()) for record in records)
    return hashlib.sha256(b"[" + b",".join(ordered) + b"]").hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text, white space and case aside: what makes two inputs the same text."""
    return hashlib.sha256(" ".join(text.split()).casefold().encode("utf-8")).hexdigest()


def is_held_out(record: Record, share: float) -> bool:
    """Whether a record belongs to the held-out side, decided by its input text alone.

    With the same `share` the same text is always on the same side, whatever its id, whether it has a target yet, and
    whatever is added or removed around it, so no version of an adapter has trained on what a later one is tested on.
    A higher share moves texts that earlier versions have learnt to the held-out side.
    """
    bucket = int(text_digest(record.input)[:16], 16) / 2**64
    return bucket < share


def split_held_out(records: Sequence[Record], share: float) -> tuple[list[Record], list[Record]]:
    """Split into (training side, held-out side). A held-out record without a target is used for nothing yet."""
    training: list[Record] = []
    held_out: list[Record] = []
    for record in records:
        (held_out if is_held_out(record, share) else training).append(record)
    return training, held_out
