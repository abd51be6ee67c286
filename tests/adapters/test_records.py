"""Records: every row is a record or is quarantined with its reason, and no text ever changes sides."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.records import (
    Record,
    digest_records,
    is_held_out,
    parse_records,
    read_records,
    split_held_out,
    text_digest,
    write_records,
)
from infra.canonical import canonical_json, digest

GOOD: dict[str, Any] = {
    "id": "a-1",
    "use_case": "email",
    "input": "Hello there",
    "target": "Hi",
    "source": "test",
    "license": "Apache-2.0",
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
RECORDS = st.builds(
    Record,
    id=IDS,
    use_case=st.sampled_from(["email", "messages"]),
    input=TEXT,
    target=st.none() | TEXT | st.lists(TEXT, min_size=1, max_size=3),
    source=st.just("test"),
    license=st.just("Apache-2.0"),
)
DATASETS = st.lists(RECORDS, max_size=12, unique_by=lambda record: record.id)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "else"]), below, max_size=6),
    max_leaves=8,
)
# Any text, any JSON, rows that are nearly right, and right ones.
LINES = st.lists(
    st.text(max_size=40)
    | JSON_VALUES.map(json.dumps)
    | st.fixed_dictionaries({}, optional={key: st.just(value) | JSON_VALUES for key, value in GOOD.items()}).map(
        json.dumps
    )
    | RECORDS.map(lambda record: record.model_dump_json()),
    max_size=8,
)


def row(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


def refusals(*lines: str) -> list[str]:
    return [bad.reason for bad in parse_records(lines, "rows.jsonl")[1]]


@given(LINES)
def test_every_row_is_a_record_or_is_quarantined_with_a_reason(lines: list[str]) -> None:
    records, refused = parse_records(lines, "rows.jsonl")
    rows = [line for line in lines if line.strip()]
    assert len(records) + len(refused) == len(rows)
    assert all(bad.reason for bad in refused)
    for bad in refused:
        name, number = bad.where.split(":")
        assert name == "rows.jsonl" and lines[int(number) - 1] == bad.row
    assert len({record.id for record in records}) == len(records)


@given(LINES)
def test_whatever_was_accepted_can_be_digested_split_and_written(lines: list[str]) -> None:
    records, _ = parse_records(lines, "rows.jsonl")
    digest_records(records)
    training, held_out = split_held_out(records, 0.5)
    assert len(training) + len(held_out) == len(records)


@given(DATASETS)
def test_written_records_are_read_back(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.mktemp("records") / "rows.jsonl"
    write_records(path, records)
    found, refused = read_records(path)
    assert refused == [] and found == sorted(records, key=lambda record: record.id)


@given(DATASETS, st.randoms(use_true_random=False))
def test_digest_and_file_do_not_depend_on_order(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], random: Any
) -> None:
    shuffled = random.sample(records, len(records))
    folder = tmp_path_factory.mktemp("records")
    write_records(folder / "one", records)
    write_records(folder / "two", shuffled)
    assert digest_records(shuffled) == digest_records(records)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


def test_digest_does_not_depend_on_the_order_of_records_that_share_an_id() -> None:
    one, two = Record(**GOOD), Record(**GOOD | {"input": "Other"})
    assert digest_records([one, two]) == digest_records([two, one])


def test_the_digest_is_that_of_the_list_of_records() -> None:
    """Keys of what was built before must stay: a faster way to the digest must not give another."""
    texts = {"b": "é", "a": "x\u2028y", "c": "x"}
    records = [Record(**GOOD | {"id": name, "input": text}) for name, text in texts.items()]
    ordered = sorted((record.model_dump() for record in records), key=canonical_json)
    assert digest_records(records) == digest(ordered)


@pytest.mark.parametrize("field", sorted(GOOD))
def test_digest_sees_every_field(field: str) -> None:
    assert digest_records([Record(**GOOD)]) != digest_records([Record(**GOOD | {field: "changed"})])


def sides(records: Sequence[Record], share: float) -> dict[str, bool]:
    training, held_out = split_held_out(records, share)
    return {record.id: False for record in training} | {record.id: True for record in held_out}


@given(DATASETS, DATASETS, st.floats(0.05, 0.95))
def test_adding_or_removing_records_moves_no_other(records: list[Record], others: list[Record], share: float) -> None:
    known = {record.id for record in records}
    more = [*records, *(record for record in others if record.id not in known)]
    before, after = sides(records, share), sides(more, share)
    assert {name: after[name] for name in before} == before


@given(RECORDS, TEXT, st.floats(0.05, 0.95))
def test_same_text_under_another_id_is_on_the_same_side(record: Record, other_id: str, share: float) -> None:
    same = record.model_copy(update={"id": other_id, "use_case": "other", "source": "elsewhere"})
    assert is_held_out(same, share) == is_held_out(record, share)


@given(st.text(st.sampled_from("ab AB\n\t "), min_size=1).filter(str.strip), st.floats(0.05, 0.95))
def test_white_space_and_case_do_not_make_another_text(text: str, share: float) -> None:
    changed = "  " + "\n".join(text.upper().split()) + "\t"
    assert text_digest(changed) == text_digest(text)
    one, other = Record(**GOOD | {"input": text}), Record(**GOOD | {"input": changed})
    assert is_held_out(one, share) == is_held_out(other, share)


@given(RECORDS, st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_larger_share_only_adds_to_the_held_out_side(record: Record, one: float, other: float) -> None:
    if is_held_out(record, min(one, other)):
        assert is_held_out(record, max(one, other))


def test_share_is_met_on_many_records() -> None:
    records = [Record(**GOOD | {"id": str(n), "input": f"text {n}"}) for n in range(4000)]
    assert len(split_held_out(records, 0.25)[1]) / 4000 == pytest.approx(0.25, abs=0.02)


def test_side_is_pinned() -> None:
    # Another hash would move texts between the sides, and versions would be tested on what they were trained on.
    held_out = [n for n in range(20) if is_held_out(Record(**GOOD | {"input": f"text {n}"}), 0.25)]
    assert held_out == [6, 7, 12, 13, 14, 17, 19]


@given(RECORDS, st.floats(0.05, 0.95))
def test_a_target_that_comes_later_moves_no_record(record: Record, share: float) -> None:
    without = record.model_copy(update={"target": None})
    assert is_held_out(without, share) == is_held_out(record.model_copy(update={"target": "later"}), share)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "row: "),
        ("NaN", "row: "),
        (row(id=""), "id: "),
        (row(id="x" * 201), "id: "),
        (row(input=" \n "), "input: "),
        (row(target=3), "target"),
        (row(note="?"), "note: Extra inputs"),
        (json.dumps({key: GOOD[key] for key in GOOD if key != "license"}), "license: Field required"),
        (row(input="half \ud83d"), "as a unicode string"),
        (row(target=["fine", "\udc00"]), "as a unicode string"),
        ("[" * 100_000, "not readable"),
        ('{"id": ' + "9" * 5000 + "}", "not readable"),
    ],
)
def test_reason_says_what_is_wrong(line: str, reason: str) -> None:
    (found,) = refusals(line)
    assert reason in found and "\n" not in found


def test_all_that_is_wrong_with_a_row_is_said_at_once() -> None:
    (reason,) = refusals(row(id="", input="", extra=1))
    assert "id: " in reason and "input: " in reason and "extra: " in reason


def test_first_of_two_equal_ids_stays() -> None:
    records, refused = parse_records([row(), row(input="second")], "rows.jsonl")
    assert [record.input for record in records] == ["Hello there"]
    assert [(bad.where, bad.reason) for bad in refused] == [("rows.jsonl:2", "id 'a-1' occurs twice")]


def test_bytes_that_are_no_utf8_spoil_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [row(id="1").encode(), row(id="2").encode().replace(b"Hello", b"H\xe9llo"), row(id="3").encode()]
    path.write_bytes(b"\n".join(lines))
    records, refused = read_records(path)
    assert [record.id for record in records] == ["1", "3"]
    assert [bad.where for bad in refused] == ["rows.jsonl:2"]
    assert "H\\xe9llo" in refused[0].row, "the byte can still be read in what was refused"


def test_line_separators_inside_a_text_do_not_split_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    record = Record(**GOOD | {"input": "one\u2028two\x85three\x0cfour"})
    write_records(path, [record])
    assert read_records(path) == ([record], [])


@pytest.mark.parametrize(("target", "targets"), [(None, []), ("a", ["a"]), (["a", "b"], ["a", "b"])])
def test_targets(target: str | list[str] | None, targets: list[str]) -> None:
    assert Record(**GOOD | {"target": target}).targets == targets
