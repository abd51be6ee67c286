"""Broken candidates are stopped by a gate that says what is wrong; a sound retraining passes."""

import pytest

from tests.adapters.broken import (
    NAMES,
    Answering,
    half_corrupted,
    other_feature,
    refusing,
    report_on,
    shuffled,
    sound,
)

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
