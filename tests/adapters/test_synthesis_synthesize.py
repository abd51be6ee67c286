"""The synthesis stage with teachers that answer from a table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from adapters.recipe import Recipe
from adapters.records import Record, read_records, write_records
from adapters.synthesis.audit import DRAFTS, latest_audit, read_audit
from adapters.synthesis.drafts import Member
from adapters.synthesis.prompts import phrasings
from adapters.synthesis.synthesize import acceptance_figures, chosen_documents, synthesize
from infra.errors import FactoryError

TEXTS = [
    "Anna wrote that the plumber comes Thursday at 9, the key is under the pot",
    "Ben asked whether the garden party on Sunday starts at noon, he brings 12 chairs",
    "Carla moved the budget meeting from Tuesday to Wednesday in room 204",
]
GOOD = [
    "The plumber comes Thursday at 9 and finds the key under Anna's pot.",
    "Ben brings 12 chairs and asked if the garden party starts at noon.",
    "Carla's budget meeting is moved to Wednesday, room 204.",
]
BAD = "Sure! Zoe has 99 problems."


class TableTeacher:
    """Answers each document with its texts, the first of them greedily; raises when they are an exception."""

    def __init__(self, texts: dict[str, list[str] | BaseException]) -> None:
        self.texts = texts
        self.asked: list[Prompt] = []
        self.sampling: Sampling | None = None

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        self.sampling = sampling
        made = []
        for index, prompt in enumerate(prompts):
            entry = self.texts[prompt.user]
            if isinstance(entry, BaseException):
                raise entry
            self.asked.append(prompt)
            answers = [Answer(text, len(text.split()), -0.1 * n, True) for n, text in enumerate(entry)]
            made.append(answers[1:] if sampling.temperature else answers[:1])
            assert on_answers is not None
            on_answers(index, made[-1])
        return made


def teacher(*texts: list[str] | BaseException) -> TableTeacher:
    return TableTeacher(dict(zip(TEXTS, texts, strict=True)))


def make_recipe(metric: str = "rouge_l", **synthesis: object) -> Recipe:
    use_case = {"prompt": "Sum up:\n{input}", "max_new_tokens": 8}
    labels = ["1", "2", "3"] if metric == "macro_f1" else None
    data = {"corpus": [], "system": "Be exact.", "use_cases": {"email": use_case, "chat": use_case}, "labels": labels}
    content = {"feature": "mail", "description": "", "data": data, "evaluation": {"metric": metric}}
    return Recipe.model_validate(content | {"synthesis": {"words": [5, 20], "candidates": 3, "seed": 7} | synthesis})


def rows_of(texts: Sequence[str], use_case: str = "email") -> list[Record]:
    return [
        Record(id=f"r{n}", use_case=use_case, input=text, source="ours", license="CC0-1.0")
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_records(tmp_path / "data" / "unlabelled.jsonl", rows_of(TEXTS))
    write_records(tmp_path / "data" / "training.jsonl", [])
    return tmp_path / "data"


def run(
    recipe: Recipe, data: Path, evaluation: Sequence[tuple[str, str]] = (), /, **teachers: TableTeacher
) -> dict[str, list[dict]]:
    """Run the stage; the audit table's rows by record."""
    output, folder = data.parent / "output", data.parent / "kept"
    output.mkdir(exist_ok=True)
    members = [Member(name, f"identity of {name}", lambda one=one: one) for name, one in teachers.items()]
    synthesize(recipe, data, members, folder, folder / "tables" / "t.parquet", output, evaluation)
    rows = read_audit(latest_audit(folder))
    return {row["id"]: [other for other in rows if other["id"] == row["id"]] for row in rows}


def accepted(data: Path) -> list[Record]:
    return read_records(data.parent / "output" / "accepted.jsonl")[0]


def report(data: Path) -> dict:
    return json.loads((data.parent / "output" / "report.json").read_text())


def test_survivors_become_records_and_everything_is_kept(data: Path) -> None:
    base = teacher([BAD, GOOD[0], f"{GOOD[0][:-1]} today!"], [BAD, BAD, BAD], [BAD, GOOD[2], f"{GOOD[2][:-1]} today!"])
    rows = run(make_recipe(), data, base=base)
    assert [(row.id, row.target, row.source, row.license) for row in accepted(data)] == [
        ("r0", GOOD[0], "synthetic:base", "CC0-1.0"),
        ("r2", GOOD[2], "synthetic:base", "CC0-1.0"),
    ]
    assert [row["verdict"] for row in rows["r0"]] == ["rejected", "chosen", "outvoted"]
    assert [row["verdict"] for row in rows["r1"]] == ["rejected"] * 3
    assert rows["r0"][0]["reasons"]["names"] == "not in the source: Sure, Zoe"
    found = report(data)
    assert (found["documents"], found["accepted"], found["candidates"], found["candidates_passed"]) == (3, 2, 9, 4)
    assert found["reasons"]["numbers"] == found["use_cases"]["email"]["reasons"]["numbers"] == 5
    assert found["diversity"]["distinct_1"] > 0.8
    figures = acceptance_figures(found)
    assert figures["synthesis.acceptance/base"] == 0.6667 and figures["synthesis.rejected/numbers"] == 5 / 9
    assert base.sampling == Sampling(64, 0.7, 0.95, 2, 7), "the third is the likeliest"
    assert {prompt.system for prompt in base.asked} <= set(phrasings(make_recipe(), "email"))


def test_the_survivor_that_others_agree_with_is_chosen_whoever_wrote_it(data: Path) -> None:
    alone = "Anna wrote that the key is under a pot of a plumber."
    one = teacher([alone], [BAD], [BAD])
    other = teacher([GOOD[0], f"{GOOD[0][:-1]} again now."], [BAD], [GOOD[2]])
    rows = run(make_recipe(), data, small=one, large=other)
    assert [(row["teacher"], row["verdict"]) for row in rows["r0"]] == [
        ("small", "outvoted"),
        ("large", "chosen"),
        ("large", "outvoted"),
    ]
    assert {row.source for row in accepted(data)} == {"synthetic:large"}
    assert report(data)["teachers"]["small"]["accepted"] == 0


def test_teachers_that_contradict_each_other_leave_it_to_people(data: Path) -> None:
    one, other = "The party that Ben asked about starts Sunday.", "The party that Ben asked about starts at noon."
    rows = run(make_recipe(tie=0.2), data, a=teacher([BAD], [one], [BAD]), b=teacher([BAD], [other], [BAD]))
    assert [row["verdict"] for row in rows["r1"]] == ["queued", "queued"]
    assert "Sunday" in rows["r1"][0]["question"] or "noon" in rows["r1"][0]["question"]
    assert accepted(data) == [] and report(data)["queued"] == 1


def test_what_teachers_know_by_heart_of_evaluation_texts_is_rejected(data: Path) -> None:
    known = "the plumber comes Thursday at 9 and finds the key under Anna's pot"
    other = "Anna wrote that the key is under a pot of a plumber."
    others = [[text] * 3 for text in GOOD[1:]]
    rows = run(make_recipe(), data, [("bench.jsonl:1", known)], base=teacher([GOOD[0], other, GOOD[0]], *others))
    assert [row["verdict"] for row in rows["r0"]] == ["rejected", "chosen", "rejected"]
    ngram = "the plumber comes thursday at 9 and finds the key under anna s"
    assert rows["r0"][0]["reasons"] == {"evaluation_sets": f"shares {ngram!r} with bench.jsonl:1"}
    assert report(data)["reasons"] == {"evaluation_sets": 2}
    assert [row.target for row in accepted(data)] == [other, *GOOD[1:]]
    # Nor is it common usage because a teacher says it everywhere; what records say everywhere is.
    section = make_recipe().data
    cleaning = section.cleaning.model_copy(update={"common_ngrams": 1})
    often = make_recipe().model_copy(update={"data": section.model_copy(update={"cleaning": cleaning})})
    rows = run(often, data, [("b", known)], base=teacher([GOOD[0], other, GOOD[0]], *others))
    assert [row["verdict"] for row in rows["r0"]] == ["rejected", "chosen", "rejected"]
    write_records(
        data / "training.jsonl",
        [
            record.model_copy(update={"id": f"t{n}", "input": known, "target": "x"})
            for n, record in enumerate(rows_of(["x", "y"]))
        ],
    )
    run(often, data, [("b", known)], base=teacher([GOOD[0], other, GOOD[0]], *others))
    assert "evaluation_sets" not in report(data)["reasons"]


def test_nothing_is_generated_twice(data: Path) -> None:
    answers = [[text] for text in GOOD]
    order = [record.input for record in chosen_documents(rows_of(TEXTS), 9)]
    broken = teacher(*answers)
    broken.texts[order[1]] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(make_recipe(), data, base=broken)
    (file,) = (data.parent / "kept" / DRAFTS).glob("*.jsonl")
    with file.open("a") as appended:
        appended.write('{"prompt": "r9", "answ')  # what a kill in the middle of a write leaves
    second = teacher(*answers)
    run(make_recipe(), data, base=second)
    assert len(broken.asked) == 1 and len(second.asked) == 2 + 3, "the likeliest that are missing, and all others"
    assert [row.target for row in accepted(data)] == GOOD
    first = (data.parent / "output" / "accepted.jsonl").read_bytes()
    third = teacher(*answers)
    run(make_recipe(max_copied_share=0.9), data, base=third)
    assert third.asked == [], "other rules judge the same drafts"
    assert (data.parent / "output" / "accepted.jsonl").read_bytes() == first
    run(make_recipe(seed=8), data, base=third)
    assert len(third.asked) == 3, "another seed draws the others anew"


def test_single_notifications_are_stacked_for_a_digest_and_good_texts_are_damaged(data: Path) -> None:
    notes = rows_of([f"App - note number {n} about the boiler in Leeds" for n in range(3)])
    good = [record.model_copy(update={"id": "g", "use_case": "chat"}) for record in rows_of([TEXTS[0]])]
    write_records(data / "unlabelled.jsonl", [*notes, *good])
    (stack,) = {"\n".join(record.input for record in chosen_documents(notes, 9))}
    recipe = make_recipe(tasks={"email": "digest", "chat": "damage"})
    rows = run(recipe, data, base=TableTeacher({stack: ["The boiler in Leeds has 3 notes."]}))
    assert [row.target for row in accepted(data) if row.id == "g"] == [TEXTS[0]]
    assert rows["g"][0]["teacher"] == "damage" and len(rows) == 2


def test_nothing_to_do(data: Path) -> None:
    write_records(data / "unlabelled.jsonl", [])
    run(make_recipe(), data, base=teacher([], [], []))
    assert accepted(data) == [] and report(data)["acceptance_rate"] is None
    bare = make_recipe().model_copy(update={"synthesis": None})
    with pytest.raises(FactoryError, match="no synthesis section"):
        run(bare, data)


def test_documents_are_chosen_in_turn_from_the_use_cases() -> None:
    rows = [
        Record(id=f"{use_case}{n}", use_case=use_case, input=f"text {n} {use_case}", source="s", license="l")
        for use_case, count in (("email", 20), ("chat", 3))
        for n in range(count)
    ]
    chosen = chosen_documents(rows, 8)
    assert sorted(row.use_case for row in chosen) == ["chat"] * 3 + ["email"] * 5
    assert chosen == chosen_documents(rows[::-1], 8)
    assert len(chosen_documents(rows, 100)) == 23
