"""Broken candidates are stopped by a gate that says what is wrong; a sound retraining passes."""

import numpy as np
import pytest

from adapters.evaluation.scores import resampled
from adapters.evaluation.statistics import resample
from adapters.recipe import load_recipe
from tests.adapters.broken import (
    FEATURES,
    NAMES,
    Answering,
    base,
    case,
    copying,
    dead_in,
    half_corrupted,
    other_feature,
    refusing,
    report_on,
    shuffled,
    sound,
    trivial,
)
from tests.adapters.unchanged import stored

SLICES = [
    (name, use_case)
    for name in ("summarization", "writing")
    for use_case in load_recipe(FEATURES / name).data.use_cases
]
each_feature = pytest.mark.parametrize("name", NAMES)


@each_feature
@pytest.mark.parametrize(
    ("broken", "gates"),
    [
        (shuffled, {"better_than_baseline", "better_than_trivial", "not_worse_than_production", "grounded_share"}),
        (other_feature, {"better_than_trivial", "not_worse_than_production", "copied_share", "empty_answers_share"}),
        (half_corrupted, {"not_worse_than_production"}),
        (refusing, {"refusals_share", "empty_answers_share"}),
    ],
    ids=["shuffled targets", "another feature", "half corrupted", "refuses"],
)
def test_a_broken_candidate_is_stopped_by_a_gate_that_says_why(name: str, broken: Answering, gates: set[str]) -> None:
    report = report_on(name, broken)
    failed = {gate.name: gate.detail for gate in report.failed}
    assert not report.passed and failed.keys() & gates, failed
    assert all(detail for detail in failed.values())


@pytest.mark.parametrize("broken", [shuffled, other_feature, refusing])
@each_feature
def test_the_first_version_of_a_feature_is_stopped_too(name: str, broken: Answering) -> None:
    assert not report_on(name, broken, production=None).passed


@pytest.mark.parametrize("there", [base, copying], ids=["the base's answers", "copies"])
@pytest.mark.parametrize(("name", "use_case"), SLICES)
def test_a_first_version_with_one_dead_use_case_is_stopped_by_its_name(
    name: str, use_case: str, there: Answering
) -> None:
    failed = [gate.name for gate in report_on(name, dead_in(use_case, there), production=None).failed]
    assert any(gate.endswith(f"/{use_case}") for gate in failed), failed
    assert not any("/" in gate and not gate.endswith(f"/{use_case}") for gate in failed), failed


def test_half_corrupted_summaries_are_called_ungrounded_even_without_a_production_version() -> None:
    failed = [gate.name for gate in report_on("summarization", half_corrupted, production=None).failed]
    assert failed == ["grounded_share"]


@each_feature
def test_a_retraining_with_another_seed_passes(name: str) -> None:
    reports = [report_on(name, sound, seed) for seed in range(1, 9)]
    stopped = [gate.name for report in reports for gate in report.failed]
    assert len(stopped) <= 1, stopped
    assert sum(bool(report.warnings) for report in reports) <= 2


def test_saying_nothing_is_stopped_by_name() -> None:
    report = report_on("writing", lambda plan, chosen, seed: [""] * len(chosen))
    assert "empty_answers_share" in [gate.name for gate in report.failed]


@pytest.mark.parametrize("name", ["summarization", "writing"])
def test_gates_on_use_cases_let_pass_what_a_real_adapter_scored(name: str) -> None:
    """Answers of a real adapter, drawn anew as other held-out records would have drawn them."""
    chosen, adapter, rival = stored(name)
    plan, corpus_items = case(name)
    rules = load_recipe(FEATURES / name).evaluation.gates
    weights = resample([item.use_case for item in chosen], [item.id for item in chosen], seed=1, resamples=400)
    for gate, other in (("use_case_over_base", rival), ("use_case_over_trivial", None)):
        others = [other] if other else list(trivial(name).values())
        metric = plan.evaluation.metric
        ours = resampled(chosen, adapter, metric, weights)
        theirs = [resampled(corpus_items, one, metric, weights) for one in others]
        for use_case in adapter.counts:
            best = np.max([one[use_case] for one in theirs], axis=0)
            stopped = float((ours[use_case] - best <= rules[gate].value).mean())
            assert stopped <= 0.02, (gate, use_case)
