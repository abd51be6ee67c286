"""What a user added and removed, over the corpus."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from adapters.data.overlay import Overlay, effective_records, read_overlay
from adapters.records import Record, write_records


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
