"""The chain of the ledger's rows, checked: what was edited, reordered, taken out, cut off or written anew.

Each row holds the hash of the feature's row before it, so a change in the middle breaks the chain. A chain that was cut
off at its end, or written anew from some row on, is whole in itself: it shows against heads that somebody else keeps,
numbers and hashes of rows that the channel has followed.

Pure functions over rows as the database holds them, whether they still make sense or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from registry.decisions import NO_ROW, Row

Columns = Mapping[str, Any]


class Head(NamedTuple):
    """Number and hash of a row that was a feature's last one when they were written down."""

    number: int
    hash: str


class Finding(NamedTuple):
    """Something wrong with a feature's rows, at or after the row `number`; 0 if it is about none of them."""

    feature: str
    number: int
    problem: str

    def __str__(self) -> str:
        return f"{self.feature} row {self.number}: {self.problem}" if self.number else f"{self.feature}: {self.problem}"


def verify_chain(rows_by_feature: Mapping[str, Sequence[Columns]], heads: Mapping[str, Head]) -> list[Finding]:
    """Everything that is wrong, feature by feature; nothing if every row is as it was written and none is missing.

    `rows_by_feature` holds each feature's rows in the order of their numbers, `heads` what is anchored elsewhere; a
    feature without a head is checked in itself only.
    """
    findings: list[Finding] = []
    for feature in sorted(rows_by_feature.keys() | heads.keys()):
        rows = rows_by_feature.get(feature, ())
        findings += _links(feature, rows)
        if feature in heads:
            findings += _anchored(feature, rows, heads[feature])
    return findings


def _links(feature: str, rows: Sequence[Columns]) -> list[Finding]:
    findings: list[Finding] = []
    expected, previous = 1, NO_ROW
    for columns in rows:
        number = int(columns["number"])
        if number != expected:
            findings.append(Finding(feature, number, f"{_missing(expected, number)} before it"))
        if columns["previous"] != previous:
            findings.append(Finding(feature, number, "does not follow the row before it"))
        if not _untouched(columns):
            findings.append(Finding(feature, number, "was changed after it was written"))
        expected, previous = number + 1, columns["hash"]
    return findings


def _anchored(feature: str, rows: Sequence[Columns], head: Head) -> list[Finding]:
    last = int(rows[-1]["number"]) if rows else 0
    if last < head.number:
        cut = f"the ledger ends here, rows up to {head.number} are cut off: the channel follows row {head.number}"
        return [Finding(feature, last, cut)]
    found = [columns["hash"] for columns in rows if int(columns["number"]) == head.number]
    if found and found != [head.hash]:
        return [Finding(feature, head.number, "is not the row that the channel follows: it was written anew")]
    return []


def _missing(first: int, end: int) -> str:
    if end <= first:
        return f"row {first} should stand here, not {end},"
    return f"row {first} is missing" if end == first + 1 else f"rows {first} to {end - 1} are missing"


def _untouched(columns: Columns) -> bool:
    try:
        row = Row.from_columns(columns)
    except ValueError:
        return False
    return row.computed_hash() == columns["hash"] and row.lineage_key == columns["lineage_key"]
