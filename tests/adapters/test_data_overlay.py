"""What a user added and removed, over the corpus."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from adapters.data.overlay import Difference, Overlay, difference, effective_records, read_overlay, version_records
from adapters.records import Record, write_records
from infra.canonical import canonical_json


def record(name: str, text: str = "x") -> Record:
    return Record(id=name, use_case="email", input=text, source="s", license="l")


ids = st.sampled_from("abcdef")


@given(st.lists(ids, unique=True), st.lists(ids, unique=True), st.frozensets(ids))
def test_added_wins_and_removed_is_gone(corpus: list[str], added: list[str], removed: frozenset[str]) -> None:
    found = effective_records([record(i, "old") for i in corpus], [record(i, "new") for i in added], removed)
    assert {one.id for one in found} == (set(corpus) | set(added)) - removed
    assert all(one.input == ("new" if one.id in added else "old") for one in found)


def test_overlay_is_read_from_files(tmp_path: Path) -> None:
    assert read_overlay(tmp_path / "absent") == Overlay([], frozenset(), [])
    write_records(tmp_path / "added.jsonl", [record("a")])
    with (tmp_path / "added.jsonl").open("a") as file:
        file.write("not json\n")
    (tmp_path / "removed.txt").write_text("b\nc d\n")
    overlay = read_overlay(tmp_path)
    assert [one.id for one in overlay.added] == ["a"]
    assert overlay.removed == {"b", "c d"}
    assert overlay.refused[0].where == "added.jsonl:2"


def row(name: str, text: str) -> bytes:
    return canonical_json(record(name, text).model_dump()) + b"\n"


def test_a_version_holds_its_records_what_was_added_since_and_not_what_was_removed() -> None:
    files = {"records.jsonl": row("a", "1") + row("b", "1"), "added.jsonl": row("b", "2") + row("c", "2")}
    found = version_records(files | {"removed.txt": b"a\n"})
    assert {one: row["input"] for one, row in found.items()} == {"b": "2", "c": "2"}
    assert version_records({}) == {}


def test_difference_names_what_was_added_removed_and_changed() -> None:
    before = version_records({"records.jsonl": row("a", "1") + row("b", "1") + row("c", "1")})
    after = version_records({"records.jsonl": row("b", "2") + row("c", "1") + row("d", "1")})
    assert difference(before, after) == Difference(added=["d"], removed=["a"], changed={"b": ["input"]})
