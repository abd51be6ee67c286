"""Rows of any field names become records; what is none is returned with its reason."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.convert import convert
from infra.errors import FactoryError

DEFAULTS = {"use_case": "email", "source": "inbox", "license": "CC0-1.0"}


def test_jsonl_fields_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "Hello there", "sum": "A greeting"}\n\n{"body": "Bye", "id": 7, "use_case": "chat"}\n')
    records, refused = convert(path, input_field="body", target_field="sum", **DEFAULTS)
    assert refused == []
    first, second = records
    assert (first.input, first.target, first.use_case, first.source) == ("Hello there", "A greeting", "email", "inbox")
    assert (second.id, second.use_case, second.target) == ("7", "chat", None)
    assert first.id == convert(path, input_field="body", **DEFAULTS)[0][0].id, "an id of a row does not change"


def test_csv_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('input,target\n"two\nlines",short\none,two,three\nlast,\n', "utf-8-sig")
    records, refused = convert(path, **DEFAULTS)
    assert [(record.input, record.target) for record in records] == [("two\nlines", "short"), ("last", None)]
    assert [(row.where, row.reason) for row in refused] == [("rows.csv:4", "3 columns where the header has 2")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"input": "cut o', "not JSON: Unterminated string starting at"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ("[1, 2]", "not an object but list"),
        ('{"text": "x"}', "no field 'input'; the row has text"),
        ('{"input": 5}', "input: Input should be a valid string"),
        ('{"input": "x", "target": {"a": 1}}', "target."),
        ('{"input": "   "}', "input: String should have at least 1 character"),
    ],
)
def test_bad_rows_are_quarantined(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "good"}\n' + line + "\n")
    records, refused = convert(path, **DEFAULTS)
    assert len(records) == 1
    assert refused[0].where == "rows.jsonl:2"
    assert refused[0].reason.startswith(reason)
    assert refused[0].row == line


def test_missing_use_case_and_repeated_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "a", "use_case": "email"}\n{"input": "a", "use_case": "email"}\n{"input": "b"}\n')
    records, refused = convert(path, source="s", license="l")
    assert len(records) == 1
    assert "occurs twice" in refused[0].reason
    assert refused[1].reason.startswith("use_case:")


def test_unterminated_csv_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('input\ngood\n"never closed\nmore\n')
    records, refused = convert(path, **DEFAULTS)
    assert [record.input for record in records] == ["good"]
    assert refused[0].reason.startswith("not CSV")
    assert "never closed" in refused[0].row


def test_binary_and_unknown_files(tmp_path: Path) -> None:
    binary = tmp_path / "rows.jsonl"
    binary.write_bytes(b"\x00\xff\xfe\x80\n\x1b[0m\n")
    records, refused = convert(binary, **DEFAULTS)
    assert (records, len(refused)) == ([], 2)
    with pytest.raises(FactoryError, match="no such file"):
        convert(tmp_path / "absent.csv", **DEFAULTS)
    (tmp_path / "rows.xlsx").write_bytes(b"")
    with pytest.raises(FactoryError, match=r"can read \.jsonl, "):
        convert(tmp_path / "rows.xlsx", **DEFAULTS)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(texts, st.none() | texts), max_size=8))
def test_every_row_is_a_record_or_quarantined(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"".join(json.dumps({"input": a, "target": b}).encode() + b"\n" for a, b in rows))
    records, refused = convert(path, **DEFAULTS)
    assert len(records) + len(refused) == max(len(rows), 1), "a file without a row is told too"
    assert {record.input.strip() for record in records} == {text.strip() for text, _ in rows}
