"""Repeats go from the right side, with proof, and the training side never depends on the held-out one."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adapters.features
from adapters.data.cleaning import clean
from adapters.data.overlap import Overlap, remove_overlap
from adapters.recipe import CleaningSection, load_recipe
from adapters.records import Record, is_held_out, read_records

VOCABULARY = [f"w{number}" for number in range(3000)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def record(name: str, content: str, **fields: Any) -> Record:
    values = {"use_case": "email", "target": None, "source": "s", "license": "l"} | fields
    return Record(id=name, input=content, **values)


def overlap(
    records: Sequence[Record], held_out: Collection[str] = "", texts: Sequence[tuple[str, str]] = (), **section: Any
) -> Overlap:
    return remove_overlap(records, held_out, CleaningSection(**section), texts)


def left(result: Overlap) -> str:
    return "".join(record.id for record in result.records)


def test_near_duplicates_go_within_a_set_and_between_sets() -> None:
    base = text(1)
    records = [
        record("a", base, source="x"),
        record("b", base + " end", source="x"),
        record("c", "start " + base, source="y"),
        record("d", base + " end", use_case="chat"),
        record("e", text(2)),
    ]
    result = overlap(records)
    assert left(result) == "ade", "another use case is another record"
    assert [one.reason for one in result.removed] == ["0.98 alike to record 'a' of x"] * 2
    assert result.report()["repeats_between_sources"] == {"x and x": 1, "x and y": 1}
    assert left(overlap(records, near_duplicates=None)) == "abcde"


def test_a_held_out_record_goes_if_it_nearly_repeats_a_training_one_of_any_use_case() -> None:
    records = [record("a", text(1)), record("h", text(1) + " end", use_case="chat")]
    assert left(overlap(records, "h")) == "a"
    assert left(overlap(records)) == "ah"


def test_a_held_out_record_goes_if_it_shares_an_ngram_with_training() -> None:
    leak = text(1)
    records = [
        record("a", f"{text(2)} {leak[:200]} {text(3)}"),
        record("b", text(4), target=f"{text(5, 20)} our answer is forty two {text(6, 9)}"),
        record("h", leak),
        record("i", text(7), target=["Our answer is: forty two!"]),
        record("j", text(8)),
    ]
    result = overlap(records, "hij")
    assert left(result) == "abj"
    assert {one.record.id: one.step for one in result.removed} == {"h": "held_out", "i": "held_out"}
    proofs = {
        (proof["text"], proof["evaluation"]): proof["ngram"] for proof in result.report()["contamination"]["proofs"]
    }
    assert proofs["b", "i"] == "our answer is forty two"
    assert len(proofs["a", "h"].split()) == 13
    assert "our answer is forty two" in result.removed[1].reason


def test_training_records_go_if_they_share_an_ngram_with_an_evaluation_set() -> None:
    test = [("bench.jsonl:1", text(1)), ("bench.jsonl:2", "too few words")]
    records = [
        record("a", f"{text(2)} {text(1)[60:200]}"),
        record("b", f"{text(3)} too few words"),
        record("h", text(1)),
    ]
    result = overlap(records, "h", test)
    assert left(result) == "bh", "what is tested on may be tested on elsewhere too"
    assert "with bench.jsonl:1" in result.removed[0].reason
    assert left(overlap(records, "", test)) == "b"


def test_common_usage_is_no_proof() -> None:
    phrase = "let me know if you have any questions"
    records = [record(str(n), f"{text(n)} {phrase}") for n in range(4)] + [record("h", phrase)]
    assert left(overlap(records, "h", common_ngrams=3)) == "0123h"
    assert left(overlap(records, "h", common_ngrams=4)) == "0123"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12))
def test_the_training_side_is_the_same_whatever_is_held_out(drawn: list[tuple[int, bool]]) -> None:
    made = [record(f"r{n}", text(seed, 20) + f" {n}", source=str(held)) for n, (seed, held) in enumerate(drawn)]
    training = [one for one in made if one.source == "False"]
    held_out = [one for one in made if one.source == "True"]
    together = overlap([*training, *held_out], {one.id for one in held_out})
    assert [one for one in together.records if one.source == "False"] == overlap(training).records
    assert len(together.records) + len(together.removed) == len(made)


@pytest.mark.parametrize(
    "folder", sorted(Path(*adapters.features.__path__).glob("*/recipe.yaml")), ids=lambda path: path.parent.name
)
def test_the_shipped_corpora_are_left_as_they_are(folder: Path) -> None:
    data = load_recipe(folder.parent).data
    records = [record for entry in data.corpus for record in read_records(folder.parent / entry)[0]]
    records.sort(key=lambda record: is_held_out(record, data.held_out_share))
    cleaned = clean(records, data.cleaning)
    assert cleaned.records == records, cleaned.report()
    held_out = {record.id for record in records if is_held_out(record, data.held_out_share)}
    result = remove_overlap(cleaned.records, held_out, data.cleaning, ())
    assert result.records == records, result.report()
