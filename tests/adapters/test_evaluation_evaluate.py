"""The comparison of systems: broken candidates are stopped, sound ones pass, and everything repeats exactly."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from adapters.evaluation.evaluate import (
    answer,
    differences,
    items,
    judge,
    read_answers,
    score,
    write_answers,
    write_evaluation,
)
from adapters.evaluation.gates import GateReport
from adapters.evaluation.metrics import macro_f1
from adapters.evaluation.statistics import Interval, resample, weighted_macro_f1, weighted_mean
from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from adapters.recipe import Recipe
from adapters.records import Record, write_records
from infra.errors import FactoryError

PEOPLE = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lou")
THINGS = ("the red bicycle", "a box of plums", "two tickets", "the spare key", "an old radio")
PLACES = ("at the north gate", "behind the bakery", "in the school hall", "by the river", "on platform nine")


def recipe(metric: str, cases: Sequence[str] = ("one", "two"), per_case: int = 100) -> Recipe:
    use_case = {"max_new_tokens": 7, "prompt": "Do it.\n\n{input}"}
    return Recipe.model_validate(
        {
            "feature": "trial",
            "description": "made for a test",
            "data": {
                "corpus": [],
                "system": "You help.",
                "use_cases": {name: use_case | {"max_new_tokens": 7 + place} for place, name in enumerate(cases)},
                "labels": ["1", "2", "3"] if metric == "macro_f1" else None,
            },
            "evaluation": {"metric": metric, "items_per_use_case": per_case},
        }
    )


def records(metric: str, count: int = 40) -> list[Record]:
    generator = random.Random(0)
    made = []
    for number in range(count):
        person, other = generator.sample(PEOPLE, 2)
        thing, place = generator.choice(THINGS), generator.choice(PLACES)
        text = (
            f"{person}: hi {other}, so I thought about it and {thing} is what I will leave {place} for you ({number})"
        )
        target = str(number % 3 + 1) if metric == "macro_f1" else f"{person} leaves {thing} {place} for {other}."
        made.append(_record(f"r{number}", ("one", "two")[number % 2], text, target))
    return made


def _record(key: str, use_case: str, text: str, target: str) -> Record:
    return Record(id=key, use_case=use_case, input=text, target=target, source="test", license="Apache-2.0")


def sound(chosen: Sequence[Record], seed: int, share: float) -> list[str]:
    """Answers that keep about `share` of each reference's words, or are right in that share of labels."""
    generator = random.Random(seed)
    texts = []
    for record in chosen:
        target = record.targets[0]
        if len(target) == 1:
            texts.append(target if generator.random() < share else generator.choice("123"))
        else:
            texts.append(" ".join(word for word in target.split() if generator.random() < share))
    return texts


def shuffled(chosen: Sequence[Record]) -> list[str]:
    targets = [record.targets[0] for record in chosen]
    random.Random(1).shuffle(targets)
    return targets


@pytest.mark.parametrize("metric", ["rouge_l", "sari", "macro_f1"])
@pytest.mark.parametrize(
    "broken",
    [
        lambda chosen: [record.input for record in chosen],
        lambda chosen: ["" for _ in chosen],
        lambda chosen: ["I am sorry, but I cannot help with that." for _ in chosen],
        shuffled,
    ],
    ids=["copies", "empty", "refuses", "shuffled"],
)
def test_a_broken_candidate_is_stopped_by_a_named_gate(metric: str, broken) -> None:  # type: ignore[no-untyped-def]
    plan = recipe(metric)
    chosen = items(plan, records(metric))
    baseline = score(plan, chosen, sound(chosen, seed=2, share=0.6))
    report = judge(plan, chosen, {"baseline": baseline, "candidate": score(plan, chosen, broken(chosen))}, 9.8)
    assert report.failed[0].name == "better_than_baseline"
    assert "misses" in report.failed[0].detail


def test_saying_nothing_is_stopped_even_where_the_score_would_let_it_pass() -> None:
    plan = recipe("sari")
    chosen = items(plan, records("sari"))
    baseline = score(plan, chosen, [record.input for record in chosen])
    report = judge(plan, chosen, {"baseline": baseline, "candidate": score(plan, chosen, [""] * len(chosen))}, 9.8)
    assert report.gates[0].passed
    assert [gate.name for gate in report.failed] == ["empty_answers_share"]
    same = judge(plan, chosen, {"baseline": baseline, "candidate": baseline}, 9.8)
    assert [gate.name for gate in same.failed] == ["better_than_baseline"]


@pytest.mark.parametrize("metric", ["rouge_l", "sari", "macro_f1"])
def test_a_sound_candidate_passes_and_its_interval_excludes_zero(metric: str) -> None:
    plan = recipe(metric)
    chosen = items(plan, records(metric, 80))
    scores_of = {
        name: score(plan, chosen, sound(chosen, seed, share))
        for seed, (name, share) in enumerate((("baseline", 0.3), ("production", 0.7), ("candidate", 0.9)))
    }
    report = judge(plan, chosen, scores_of, 9.8)
    assert report.passed, report.failed
    names = [gate.name for gate in report.gates]
    assert names == ["better_than_baseline", "empty_answers_share", "not_worse_than_production", "size_budget_mb"]
    assert 0 < report.figures["difference_low"] < report.figures["difference"] < report.figures["difference_high"]
    assert report.figures["candidate/one"] == scores_of["candidate"].use_cases["one"]


def test_worse_than_production_and_too_large_are_gates_of_their_own() -> None:
    plan = recipe("rouge_l")
    chosen = items(plan, records("rouge_l"))
    scores_of = {
        "baseline": score(plan, chosen, sound(chosen, 0, 0.3)),
        "production": score(plan, chosen, sound(chosen, 1, 0.9)),
        "candidate": score(plan, chosen, sound(chosen, 2, 0.6)),
    }
    report = judge(plan, chosen, scores_of, 16.5)
    assert [gate.name for gate in report.failed] == ["not_worse_than_production", "size_budget_mb"]


def test_a_perfect_system_scores_one_and_a_feature_is_the_mean_of_its_use_cases() -> None:
    plan = recipe("sari")
    chosen = items(plan, records("sari", 6)[:5])
    perfect = score(plan, chosen, [record.targets[0] for record in chosen])
    assert perfect.overall == 1.0 and perfect.counts == {"one": 3, "two": 2} and perfect.empty == 0
    only_one = score(plan, chosen, [r.targets[0] if r.use_case == "one" else r.input for r in chosen])
    assert only_one.overall == pytest.approx((1 + only_one.use_cases["two"]) / 2)


def test_items_do_not_depend_on_order_and_change_only_by_what_comes_in() -> None:
    plan = recipe("rouge_l", per_case=10)
    all_records = records("rouge_l", 60)
    chosen = items(plan, all_records)
    assert items(plan, all_records[::-1]) == chosen
    assert [sum(r.use_case == name for r in chosen) for name in ("one", "two")] == [10, 10]
    fewer = items(plan, all_records[:-1])
    assert len({r.id for r in chosen} - {r.id for r in fewer}) <= 1


def test_a_use_case_without_held_out_records_is_told() -> None:
    with pytest.raises(FactoryError, match="use case two has no held-out record"):
        items(recipe("rouge_l"), [r for r in records("rouge_l") if r.use_case == "one"])


def test_the_bootstrap_repeats_and_keeps_equal_texts_together() -> None:
    weights = resample(["a", "a", "b", "b", "b"], ["x", "y", "x", "z", "w"], seed=3)
    assert np.array_equal(weights, resample(["a", "a", "b", "b", "b"], ["x", "y", "x", "z", "w"], seed=3))
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert (weights[:, :2].sum(axis=1) > 0).all() and (weights[:, 2:].sum(axis=1) > 0).all()
    assert weights.shape == (2000, 5)


def test_the_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    plan = recipe("rouge_l", cases=["one"])
    chosen = [_record(f"n{i}", "one", f"text {i}", "yes indeed") for i in range(200)]
    right = [i % 2 == 0 for i in range(200)]
    better = score(plan, chosen, ["yes indeed" if ok else "no" for ok in right])
    worse = score(plan, chosen, ["no"] * 200)
    found = differences(chosen, better, worse)[""]
    half_width = 1.96 * (0.5 * 0.5 / 200) ** 0.5
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - half_width, abs=0.01)
    assert found.high == pytest.approx(0.5 + half_width, abs=0.01)
    assert differences(chosen, worse, worse)[""] == Interval(0.0, 0.0, 0.0)


def test_weighted_scores_equal_plain_ones_on_repeated_items() -> None:
    truth, predicted, values = list("1122331"), list("1213321"), [0.1, 0.4, 0.2, 0.9, 0.3, 0.7, 0.5]
    weights = resample(["a"] * 7, list("abcdefg"), seed=1, resamples=50)
    for row, f1, mean in zip(
        weights, weighted_macro_f1(weights, truth, predicted), weighted_mean(weights, values), strict=True
    ):
        drawn = [i for i, times in enumerate(row) for _ in range(int(times))]
        assert f1 == pytest.approx(macro_f1([truth[i] for i in drawn], [predicted[i] for i in drawn]))
        assert mean == pytest.approx(sum(values[i] for i in drawn) / 7)


class Echo:
    """An engine that answers with the prompt's last line, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Prompt, Sampling]] = []

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        self.asked += [(prompt, sampling) for prompt in prompts]
        answers = [[Answer(" " + prompt.user.splitlines()[-1] + "\n", 3, -0.1, True)] for prompt in prompts]
        for index, candidates in enumerate(answers):
            if on_answers is not None:
                on_answers(index, candidates)
        return answers


def test_answers_are_greedy_with_the_recipes_prompt_and_in_the_order_of_the_items() -> None:
    plan = recipe("rouge_l")
    chosen = items(plan, records("rouge_l", 6))
    random.Random(0).shuffle(chosen)
    engine, done = Echo(), []
    assert answer(engine, plan, chosen, done.append) == [record.input for record in chosen]
    assert done == [1] * 6
    for prompt, sampling in engine.asked:
        assert prompt.system == "You help." and prompt.user.startswith("Do it.\n\n")
        assert sampling.temperature == 0.0 and sampling.candidates == 1
    assert {sampling.max_new_tokens for _, sampling in engine.asked} == {7, 8}


def test_stored_answers_are_evaluated_alike_each_time(tmp_path: Path) -> None:
    plan = recipe("rouge_l")
    held_out = tmp_path / "held_out.jsonl"
    odd = _record("odd", "one", "a line\u2028separator and a form\x0cfeed", "odd but sound")
    write_records(held_out, [*records("rouge_l", 20), odd])
    for name in ("baseline", "candidate", "first", "second"):
        (tmp_path / name).mkdir()
    write_answers(Echo(), plan, held_out, tmp_path / "baseline")
    chosen = items(plan, [*records("rouge_l", 20), odd])
    rows = [{"id": r.id, "use_case": r.use_case, "answer": r.targets[0]} for r in reversed(chosen)]
    (tmp_path / "candidate/answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    systems = {name: tmp_path / name for name in ("candidate", "baseline")}
    reports = [write_evaluation(plan, held_out, systems, 9.8, tmp_path / out) for out in ("first", "second")]
    assert reports[0].passed and reports[0].digest == reports[1].digest
    for name in ("gates.json", "scores.json", "samples.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert GateReport.from_json((tmp_path / "first/gates.json").read_text("utf-8")) == reports[0]
    with (tmp_path / "first/samples.jsonl").open(encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    assert [sample["id"] for sample in samples] == [record.id for record in chosen]
    assert samples[0]["answers"]["candidate"] == chosen[0].targets[0] and samples[0]["scores"]["candidate"] == 1.0


def test_answers_to_other_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "r0", "use_case": "one", "answer": "x"}\n')
    with pytest.raises(FactoryError, match=r"no answer to r1 and 1 more"):
        read_answers(path, records("rouge_l", 3))
