"""The comparison of systems: items, scores, gates; everything repeats exactly."""

import json
import random
from pathlib import Path

import pytest

from adapters.evaluation.evaluate import write_evaluation
from adapters.evaluation.gates import GateReport
from adapters.evaluation.items import documents, items
from adapters.evaluation.scores import score
from adapters.evaluation.trivial import subject_and_first_sentence, trivial_answers
from adapters.records import write_records
from infra.errors import FactoryError
from tests.adapters.evaluation_cases import judged, recipe, record, records, said, sound, write_texts

METRICS = pytest.mark.parametrize("metric", ["rouge_l", "sari", "macro_f1"])


@METRICS
def test_a_sound_candidate_passes_and_its_intervals_exclude_zero(metric: str) -> None:
    plan = recipe(metric)
    chosen = items(plan, records(metric, 80))
    systems = {
        name: sound(chosen, seed, share)
        for seed, (name, share) in enumerate((("baseline", 0.3), ("production", 0.7), ("candidate", 0.95)))
    }
    report = judged(plan, chosen, systems)
    assert report.passed, report.failed
    names = [gate.name for gate in report.gates]
    assert names[:3] == ["better_than_baseline", "better_than_trivial", "not_worse_than_production"]
    assert {"no_drop_in_a_use_case/one", "no_drop_in_a_use_case/two", "size_budget_mb"} <= set(names)
    for prefix in ("", "production_", "trivial_"):
        low, middle, high = (report.figures[f"{prefix}difference{bound}"] for bound in ("_low", "", "_high"))
        assert 0 < low < middle < high
        assert report.figures[f"{prefix}difference_p"] < 0.01


def test_a_figure_for_every_system_and_use_case() -> None:
    plan = recipe("rouge_l")
    chosen = items(plan, records("rouge_l"))
    figures = judged(plan, chosen, {"baseline": sound(chosen, 0, 0.4), "candidate": sound(chosen, 1, 0.9)}).figures
    scores = score(plan, chosen, said(sound(chosen, 1, 0.9)))
    assert figures["candidate"] == scores.overall
    assert figures["candidate/one"] == scores.values["rouge_l"]["one"]
    assert figures["candidate.groundedness"] == scores.values["groundedness"][""]
    assert figures["first_two_lines"] > 0 and "difference_detectable/two" in figures
    assert "production_difference" not in figures


def test_worse_than_production_and_too_large_are_gates_of_their_own() -> None:
    plan = recipe("rouge_l")
    chosen = items(plan, records("rouge_l"))
    systems = {"baseline": 0.3, "production": 0.9, "candidate": 0.7}
    report = judged(plan, chosen, {name: sound(chosen, 0, share) for name, share in systems.items()}, mb=16.5)
    assert [gate.name for gate in report.failed] == ["not_worse_than_production", "size_budget_mb"]
    assert [gate.name for gate in report.warnings] == ["no_drop_in_a_use_case/one", "no_drop_in_a_use_case/two"]


def test_not_worse_is_judged_by_the_interval_and_not_by_the_difference() -> None:
    # Few items: the candidate is a little better as measured, and could still be worse by more than the margin.
    plan = recipe("rouge_l", gates={"better_than_trivial": None})
    chosen = items(plan, records("rouge_l", 12))
    systems = {"baseline": [""] * 12, "production": sound(chosen, 1, 0.5), "candidate": sound(chosen, 2, 0.5)}
    systems["candidate"][0], systems["production"][0] = chosen[0].targets[0], ""
    report = judged(plan, chosen, systems)
    (gate,) = report.failed
    assert gate.name == "not_worse_than_production" and gate.judged == "low"
    assert gate.figure is not None and gate.low is not None
    assert gate.figure > -0.05 > gate.low
    assert "an equal version fails in" in gate.detail
    wide = recipe("rouge_l", gates={"better_than_trivial": None, "not_worse_than_production": {"value": 0.5}})
    assert judged(wide, chosen, systems).passed


def test_a_rule_may_judge_the_figure_of_a_comparison_or_the_bound_of_a_budget() -> None:
    over = {"comparison": "better_than_base", "value": 0.0, "slice": "each"}
    copied = {"metric": "empty", "comparison": "at_most", "value": 0.1}
    gates = {
        "figure": over | {"judged": "figure"},
        "bound": over,
        "share": copied,
        "surely": copied | {"judged": "bound"},
    }
    plan = recipe("rouge_l", gates=gates)
    chosen = items(plan, records("rouge_l", 24))
    same = [item.targets[0] for item in chosen]
    ours = [*same[:11], "", *same[12:]]  # of 12 answers in a use case one is empty, and another one better
    report = judged(plan, chosen, {"candidate": ours, "baseline": ["", *same[1:]]})
    found = {gate.name: gate for gate in report.gates}
    assert found["figure/one"].judged == "figure" and found["bound/one"].judged == "low"
    assert not found["figure/one"].passed, "no better and no worse"
    ahead = {gate.name: gate for gate in judged(plan, chosen, {"candidate": same, "baseline": ["", *same[1:]]}).gates}
    assert ahead["figure/one"].passed and not ahead["bound/one"].passed and not ahead["figure/two"].passed
    assert found["share"].passed and not found["surely"].passed and found["surely"].judged == "high"
    assert found["surely"].held == found["surely"].high


def test_a_gate_on_one_use_case_looks_at_no_other() -> None:
    floor = {"metric": "rouge_2", "comparison": "at_least", "value": 0.5}
    plan = recipe("rouge_l", gates={"one": floor | {"slice": "one"}, "two": floor | {"slice": "two"}})
    chosen = items(plan, records("rouge_l"))
    half = [item.targets[0] if item.use_case == "one" else "nothing of it" for item in chosen]
    report = judged(plan, chosen, {"baseline": [""] * len(chosen), "candidate": half})
    verdicts = {gate.name: gate.passed for gate in report.gates}
    assert verdicts["one"] and not verdicts["two"]


def test_a_warning_is_told_and_stops_nothing() -> None:
    plan = recipe("rouge_l", gates={"better_than_trivial": {"value": 0.9, "severity": "warn"}})
    chosen = items(plan, records("rouge_l"))
    report = judged(plan, chosen, {"baseline": sound(chosen, 0, 0.3), "candidate": sound(chosen, 1, 0.95)})
    assert report.passed and [gate.name for gate in report.warnings] == ["better_than_trivial"]
    assert report.metrics["gate.better_than_trivial.passed"] == 0.0
    assert report.metrics["gate.better_than_trivial.threshold"] == 0.9
    assert GateReport.from_json(report.to_json()) == report


def test_a_gate_on_probabilities_that_nobody_told_is_refused() -> None:
    plan = recipe("macro_f1", gates={"calibrated": {"metric": "brier", "comparison": "at_most", "value": 0.2}})
    chosen = items(plan, records("macro_f1"))
    with pytest.raises(FactoryError, match="tells no probabilities"):
        judged(plan, chosen, {"baseline": sound(chosen, 0, 0.3), "candidate": sound(chosen, 1, 0.9)})


def test_a_perfect_system_scores_one_and_a_feature_is_the_mean_of_its_use_cases() -> None:
    plan = recipe("sari")
    chosen = items(plan, records("sari", 6)[:5])
    perfect = score(plan, chosen, said([item.targets[0] for item in chosen]))
    assert perfect.overall == 1.0 and perfect.counts == {"one": 3, "two": 2}
    assert perfect.values["empty"][""] == 0 and perfect.values["edit_f05"][""] == perfect.values["gleu"][""] == 1.0
    only_one = score(plan, chosen, said([r.targets[0] if r.use_case == "one" else r.input for r in chosen]))
    assert only_one.overall == pytest.approx((1 + only_one.values["sari"]["two"]) / 2)


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


def test_items_of_one_document_are_one_cluster() -> None:
    rows = [
        record("a", "one", "A text", "x"),
        record("b", "two", "a  TEXT", "x"),
        record("c", "one", "another", "x", source="mails#7"),
        record("d", "two", "a third", "x", source="mails#7"),
        record("e", "one", "a fourth", "x", source="mails#8"),
        record("f", "one", "a text", "x", source="mails#8"),  # the same text as a, the same document as e
        record("g", "one", "a fifth", "x"),
    ]
    found = documents(rows)
    groups: dict[str, set[str]] = {}
    for row, name in zip(rows, found, strict=True):
        groups.setdefault(name, set()).add(row.id)
    assert sorted(groups.values(), key=min) == [{"a", "b", "e", "f"}, {"c", "d"}, {"g"}]


def test_trivial_systems_answer_without_a_model() -> None:
    chat = record("c", "one", "Ana: hi\n\nBen: yes?\nAna: bye", "x")
    mail = record("m", "one", "From: A\nSubject: Level 3 pour\n\nLads,\n\nminus four tonight. No pour.", "x")
    answers = trivial_answers("rouge_l", [chat, mail])
    assert answers["first_two_lines"][0] == "Ana: hi\nBen: yes?"
    assert answers["subject_and_first_sentence"][1] == "Level 3 pour. minus four tonight."
    assert subject_and_first_sentence("It is 3.40 already. Go home!") == "It is 3.40 already."
    assert trivial_answers("sari", [chat]) == {"unchanged": [chat.input]}
    labelled = [record(str(n), "one", f"t{n}", label) for n, label in enumerate("2213")]
    assert trivial_answers("macro_f1", labelled) == {"most_frequent": ["2"] * 4}


def test_trivial_systems_look_past_the_headers_of_mail() -> None:
    lines = [
        "From: A",
        "Subject: The pour",
        "",
        "No pour tonight.",
        "It is too cold.",
        "",
        "From: B",
        "Subject: Re: The pour",
    ]
    words = " ".join(f"word{n}" for n in range(200))
    thread = record("t", "one", "\n".join([*lines, "", f"Thanks. {words}"]), "x")
    answers = trivial_answers("rouge_l", [thread])
    assert answers["first_two_lines"] == ["No pour tonight.\nIt is too cold."]
    assert answers["subject_and_first_sentence"] == ["The pour. No pour tonight."]
    lead = answers["first_60_words"][0].split()
    assert lead[:8] == "No pour tonight. It is too cold. Thanks.".split() and len(lead) == 60


def test_the_first_words_are_never_the_whole_text() -> None:
    """Else a short input would be its own summary."""
    (answer,) = trivial_answers("rouge_l", [record("s", "one", "one two three four five six seven", "x")])[
        "first_60_words"
    ]
    assert answer == "one two three"


def test_turns_of_a_chat_are_no_headers() -> None:
    chat = record("c", "one", "Ana: hi Ben. Coming?\n\nBen: yes\nAna: good", "x")
    answers = trivial_answers("rouge_l", [chat])
    assert answers["first_two_lines"] == ["Ana: hi Ben. Coming?\nBen: yes"]
    assert answers["subject_and_first_sentence"] == ["Ana: hi Ben."]


def test_stored_answers_are_evaluated_alike_each_time(tmp_path: Path) -> None:
    plan = recipe("rouge_l")
    odd = record("odd", "one", "a line\u2028separator and a form\x0cfeed", "odd but sound")
    held_out = [*records("rouge_l", 20), odd]
    write_records(tmp_path / "held_out.jsonl", held_out)
    chosen = items(plan, held_out)
    order = list(chosen)
    random.Random(0).shuffle(order)
    systems = {
        "candidate": write_texts(tmp_path / "candidate", order, [item.targets[0] for item in order]),
        "baseline": write_texts(tmp_path / "baseline", chosen, ["nothing"] * len(chosen)),
    }
    reports = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        reports.append(
            write_evaluation(plan, tmp_path / "held_out.jsonl", systems, {"adapter_mb": 9.8}, tmp_path / name)
        )
    assert reports[0].passed and reports[0].digest == reports[1].digest
    for name in ("gates.json", "scores.json", "samples.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert GateReport.from_json((tmp_path / "first/gates.json").read_text("utf-8")) == reports[0]
    with (tmp_path / "first/samples.jsonl").open(encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    assert [sample["id"] for sample in samples] == [item.id for item in chosen]
    assert samples[0]["answers"]["candidate"] == chosen[0].targets[0] and samples[0]["scores"]["candidate"] == 1.0
    assert "first_two_lines" in samples[0]["answers"]
