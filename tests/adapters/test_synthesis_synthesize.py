"""The synthesis stage with a teacher that answers from a queue."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from adapters.recipe import Recipe
from adapters.records import Record, read_records, write_records
from adapters.synthesis.synthesize import INSTRUCTION, chosen_documents, synthesize
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


class QueueTeacher:
    """Answers each prompt with the next entry of a queue; raises when the queue says so."""

    def __init__(self, *queue: list[str] | BaseException) -> None:
        self.queue = list(queue)
        self.prompts: list[Prompt] = []
        self.sampling: Sampling | None = None

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        self.sampling = sampling
        made = []
        for index, prompt in enumerate(prompts):
            entry = self.queue.pop(0)
            if isinstance(entry, BaseException):
                raise entry
            self.prompts.append(prompt)
            made.append([Answer(text, len(text.split()), -0.1 * n, True) for n, text in enumerate(entry)])
            assert on_answers is not None
            on_answers(index, made[-1])
        return made


def make_recipe(**synthesis: object) -> Recipe:
    use_case = {"prompt": "Sum up:\n{input}", "max_new_tokens": 8}
    return Recipe.model_validate(
        {
            "feature": "mail",
            "description": "",
            "data": {"corpus": [], "system": "Be exact.", "use_cases": {"email": use_case, "chat": use_case}},
            "synthesis": {"words": [5, 20], "candidates": 3, "seed": 7} | synthesis,
            "evaluation": {"metric": "rouge_l"},
        }
    )


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    rows = [
        Record(id=f"r{n}", use_case="email", input=text, source="ours", license="CC0-1.0")
        for n, text in enumerate(TEXTS)
    ]
    write_records(tmp_path / "unlabelled.jsonl", rows)
    return tmp_path / "unlabelled.jsonl"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def order(unlabelled: Path) -> list[int]:
    """In which order the documents are put to the teacher."""
    return [int(record.id[1:]) for record in chosen_documents(read_records(unlabelled)[0], 100)]


def candidates(output: Path) -> dict[str, list[dict]]:
    rows = [json.loads(line) for line in (output / "candidates.jsonl").read_text().splitlines()]
    return {row["id"]: [other for other in rows if other["id"] == row["id"]] for row in rows}


def test_survivors_become_records_and_everything_is_kept(unlabelled: Path, output: Path) -> None:
    queue = [[BAD, GOOD[n], f"{GOOD[n][:-1]} today!"] if n != 1 else [BAD, BAD, BAD] for n in order(unlabelled)]
    teacher = QueueTeacher(*queue)
    synthesize(make_recipe(), unlabelled, teacher, output, output.parent / "scratch")

    accepted, refused = read_records(output / "accepted.jsonl")
    assert refused == []
    assert [(row.id, row.target, row.source, row.license) for row in accepted] == [
        ("r0", GOOD[0], "synthetic:base", "CC0-1.0"),
        ("r2", GOOD[2], "synthetic:base", "CC0-1.0"),
    ]
    rows = candidates(output)
    assert [row["verdict"] for row in rows["r0"]] == ["rejected", "chosen", "outvoted"]
    assert [row["verdict"] for row in rows["r1"]] == ["rejected"] * 3
    assert rows["r0"][0]["reasons"]["names"] == "not in the source: Sure, Zoe"
    assert rows["r0"][1]["logprob"] == -0.1
    report = json.loads((output / "report.json").read_text())
    assert (report["documents"], report["accepted"], report["candidates"]) == (3, 2, 9)
    assert report["candidates_passed"] == 4
    assert report["reasons"]["numbers"] == report["use_cases"]["email"]["reasons"]["numbers"] == 5
    assert teacher.sampling == Sampling(64, 0.7, 0.95, 3, 7)
    assert teacher.prompts == [Prompt(INSTRUCTION, TEXTS[n]) for n in order(unlabelled)]


def test_the_survivor_that_others_agree_with_is_chosen(unlabelled: Path, output: Path) -> None:
    alone = "Anna wrote that somebody comes, so look under a pot."
    queue = [[alone, GOOD[0], f"{GOOD[0][:-1]} again now."] if n == 0 else [GOOD[n]] for n in order(unlabelled)]
    synthesize(make_recipe(), unlabelled, QueueTeacher(*queue), output, output.parent / "scratch")
    assert [row["verdict"] for row in candidates(output)["r0"]] == ["outvoted", "chosen", "outvoted"]
    assert candidates(output)["r1"][0]["verdict"] == "chosen", "a lone survivor needs nobody's agreement"


def test_a_killed_run_generates_nothing_twice(unlabelled: Path, output: Path) -> None:
    scratch = output.parent / "scratch"
    first, *rest = ([GOOD[n]] for n in order(unlabelled))
    with pytest.raises(KeyboardInterrupt):
        synthesize(make_recipe(), unlabelled, QueueTeacher(first, KeyboardInterrupt()), output, scratch)
    with (scratch / "answers.jsonl").open("a") as file:
        file.write('{"id": "r9", "answ')  # what a kill in the middle of a write leaves
    teacher = QueueTeacher(*rest)
    synthesize(make_recipe(), unlabelled, teacher, output, scratch)
    assert len(teacher.prompts) == 2
    assert [row.target for row in read_records(output / "accepted.jsonl")[0]] == GOOD
    again = output.parent / "again"
    again.mkdir()
    synthesize(make_recipe(), unlabelled, QueueTeacher(), again, scratch)
    assert (again / "candidates.jsonl").read_bytes() == (output / "candidates.jsonl").read_bytes()


def test_all_rejected_leaves_the_human_part(unlabelled: Path, output: Path) -> None:
    synthesize(make_recipe(), unlabelled, QueueTeacher([BAD], [BAD], [BAD]), output, output.parent / "scratch")
    assert (output / "accepted.jsonl").read_bytes() == b""
    report = json.loads((output / "report.json").read_text())
    assert (report["acceptance_rate"], report["reasons"]["boilerplate"]) == (0.0, 3)


def test_nothing_to_do(tmp_path: Path, output: Path) -> None:
    write_records(tmp_path / "none.jsonl", [])
    synthesize(make_recipe(), tmp_path / "none.jsonl", QueueTeacher(), output, tmp_path / "scratch")
    assert (output / "accepted.jsonl").read_bytes() == b""
    assert json.loads((output / "report.json").read_text())["acceptance_rate"] is None
    bare = make_recipe().model_copy(update={"synthesis": None})
    with pytest.raises(FactoryError, match="no synthesis section"):
        synthesize(bare, tmp_path / "none.jsonl", QueueTeacher(), output, tmp_path / "scratch")


def test_an_endpoint_is_named_by_its_model(unlabelled: Path, output: Path) -> None:
    recipe = make_recipe(teacher="http://user:secret@127.0.0.1:1/v1", teacher_model="big-one")
    queue = [[GOOD[n]] for n in order(unlabelled)]
    synthesize(recipe, unlabelled, QueueTeacher(*queue), output, output.parent / "scratch")
    assert {row.source for row in read_records(output / "accepted.jsonl")[0]} == {"synthetic:big-one"}


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
