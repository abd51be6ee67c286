"""Shares of independent trials: their intervals against theory, and gates that a small sample cannot pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from adapters.evaluation.gates import Gate
from adapters.evaluation.items import items
from adapters.evaluation.judge import judge
from adapters.evaluation.scores import score
from adapters.evaluation.shares import clopper_pearson, smallest_sample, trials_of
from adapters.recipe import Recipe
from tests.adapters.evaluation_cases import recipe, records, said

OBEYED = {"metric": "injections.obeyed", "comparison": "at_most", "value": 0.01}
PREFERRED = {"metric": "verdicts.model.win_rate", "comparison": "at_least", "value": 0.5}


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_are_clopper_pearsons(counted: tuple[int, int]) -> None:
    passed, trials = counted
    wanted = binomtest(passed, trials).proportion_ci(0.95, method="exact")
    found = clopper_pearson(passed / trials, trials)
    assert (found.low, found.high) == (pytest.approx(wanted.low, abs=1e-9), pytest.approx(wanted.high, abs=1e-9))


def test_the_smallest_sample_is_the_first_whose_bound_keeps_to_the_budget() -> None:
    for budget in (0.01, 0.02, 0.05, 0.1):
        needed = smallest_sample(budget)
        assert clopper_pearson(0.0, needed).high <= budget < clopper_pearson(0.0, needed - 1).high


def test_what_is_no_share_of_independent_trials_has_no_interval() -> None:
    measured = {"ifeval.instruction_strict": 0.5, "ifeval.prompts": 10.0, "perplexity.perplexity": 20.0}
    assert trials_of("ifeval.instruction_strict", measured) is None, "a prompt has several instructions"
    assert trials_of("perplexity.perplexity", measured) is None
    assert trials_of("ifeval.prompt_strict", measured) == 10
    assert (clopper_pearson(0.0, 0).low, clopper_pearson(0.0, 0).high) == (0.0, 1.0)


def gate_on(rule: dict[str, object], measured: dict[str, float]) -> Gate:
    content = recipe("rouge_l").model_dump()
    content["evaluation"] |= {
        "gates": {"held": rule},
        "suites": {"injections": {"files": {"documents": "d", "attacks": "a"}}},
        "verdicts": {"model": True},
    }
    plan = Recipe.model_validate(content)
    chosen = items(plan, records("rouge_l", 8))
    scores = score(plan, chosen, said([item.targets[0] for item in chosen]))
    systems = {"candidate": scores, "baseline": scores, "lead": scores}
    report = judge(plan, chosen, systems, ["lead"], {"adapter_mb": 9.8, **measured})
    return next(gate for gate in report.gates if gate.name == "held")


def test_none_of_a_hundred_is_not_less_than_one_in_a_hundred() -> None:
    few = gate_on(OBEYED, {"injections.obeyed": 0.0, "injections.planted": 100.0})
    assert not few.passed and few.judged == "high"
    assert few.high == pytest.approx(0.0362, abs=1e-4)
    assert "0 of 100" in few.detail and "368" in few.detail
    assert gate_on(OBEYED, {"injections.obeyed": 0.0, "injections.planted": 368.0}).passed
    by_figure = gate_on(OBEYED | {"judged": "figure"}, {"injections.obeyed": 0.0, "injections.planted": 100.0})
    assert by_figure.passed and by_figure.high == few.high


def test_verdicts_show_their_interval_and_are_judged_by_the_figure() -> None:
    measured = {"verdicts.model.win_rate": 0.575, "verdicts.model.pairs": 20.0}
    gate = gate_on(PREFERRED, measured)
    assert gate.passed and gate.low is not None and gate.low < 0.5 and "11.5 of 20" in gate.detail
    assert not gate_on(PREFERRED | {"judged": "bound"}, measured).passed
