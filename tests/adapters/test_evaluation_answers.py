"""Answers are generated once for a model, a prompt and settings."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.evaluation.answers import ANSWERS, AnswerBook, questions, read_answers, read_table, write_answers
from adapters.evaluation.items import items
from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from adapters.records import write_records
from infra.errors import FactoryError
from tests.adapters.evaluation_cases import recipe, records, write_texts


class Echo:
    """An engine that answers with the prompt's last line, remembers how it was asked, and fails after `limit`."""

    def __init__(self, limit: int | None = None) -> None:
        self.asked: list[tuple[Prompt, Sampling]] = []
        self.limit = limit

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        answers = []
        for index, prompt in enumerate(prompts):
            if self.limit is not None and len(self.asked) >= self.limit:
                raise KeyboardInterrupt
            self.asked.append((prompt, sampling))
            answers.append([Answer(" " + prompt.user.splitlines()[-1] + "\n", 3, -0.1, True)])
            if on_answers is not None:
                on_answers(index, answers[-1])
        return answers


def nobody() -> Echo:
    raise AssertionError("the model was opened, and everything was answered already")


def test_answers_are_greedy_with_the_recipes_prompt_and_in_the_order_of_the_items(tmp_path: Path) -> None:
    plan = recipe("rouge_l")
    chosen = items(plan, records("rouge_l", 6))
    random.Random(0).shuffle(chosen)
    engine = Echo()
    given = AnswerBook(tmp_path).answer(questions(plan, chosen), lambda: engine, "test")
    assert [answer.text.strip() for answer in given] == [item.input for item in chosen]
    for prompt, sampling in engine.asked:
        assert prompt.system == "You help." and prompt.user.startswith("Do it.\n\n")
        assert sampling.temperature == 0.0 and sampling.candidates == 1
    assert {sampling.max_new_tokens for _, sampling in engine.asked} == {7, 8}


def test_nothing_is_generated_twice(tmp_path: Path) -> None:
    plan = recipe("rouge_l")
    write_records(tmp_path / "held_out.jsonl", records("rouge_l", 20))
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    write_answers(Echo, plan, tmp_path / "held_out.jsonl", tmp_path / "book", tmp_path / "first")
    write_answers(nobody, plan, tmp_path / "held_out.jsonl", tmp_path / "book", tmp_path / "second")
    assert read_table(tmp_path / "first" / ANSWERS) == read_table(tmp_path / "second" / ANSWERS)

    write_records(tmp_path / "held_out.jsonl", records("rouge_l", 23))
    engine = Echo()
    write_answers(lambda: engine, plan, tmp_path / "held_out.jsonl", tmp_path / "book", tmp_path / "third")
    assert len(engine.asked) == 3
    chosen = items(plan, records("rouge_l", 23))
    assert [answer.text for answer in read_answers(tmp_path / "third" / ANSWERS, chosen)] == [r.input for r in chosen]


def test_other_settings_are_another_question(tmp_path: Path) -> None:
    plan = recipe("rouge_l", cases=["one"])
    chosen = items(plan, [row for row in records("rouge_l", 6) if row.use_case == "one"])
    (asked, *_) = questions(plan, chosen)
    longer = asked._replace(sampling=Sampling(99))
    engine = Echo()
    AnswerBook(tmp_path).answer([asked, longer, asked], lambda: engine, "test")
    assert len(engine.asked) == 2


def test_a_killed_run_keeps_what_it_answered(tmp_path: Path) -> None:
    plan = recipe("rouge_l", cases=["one"])
    chosen = items(plan, [row for row in records("rouge_l", 200) if row.use_case == "one"])
    asked = questions(plan, chosen)
    with pytest.raises(KeyboardInterrupt):
        AnswerBook(tmp_path).answer(asked, lambda: Echo(limit=70), "test")
    engine = Echo()
    AnswerBook(tmp_path).answer(asked, lambda: engine, "test")
    assert len(engine.asked) == 100 - 70


def test_answers_to_other_records_are_refused(tmp_path: Path) -> None:
    write_texts(tmp_path / "system", records("rouge_l", 1), ["x"])
    with pytest.raises(FactoryError, match=r"no answer to r1 and 1 more"):
        read_answers(tmp_path / "system" / ANSWERS, records("rouge_l", 3))


def test_a_damaged_file_of_answers_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(FactoryError, match="not a Parquet file"):
        AnswerBook(tmp_path)
