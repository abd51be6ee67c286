"""The plan: every state from the rows that define it, without a database or MLflow."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.lineage import Lineage
from infra.canonical import digest
from registry.base_plan import plan_base
from registry.costs import base_cost, feature_cost
from registry.decisions import BASE, NO_ROW, Action, Row, good_versions, holds, production
from registry.ledger import Ledger
from registry.plan import FeaturePlan, plan_feature
from tests.registry.samples import make_decision, make_lineage

RELEASE, NEXT = digest("release"), digest("next release")
ONE = make_lineage(RELEASE, "one")
TWO = make_lineage(RELEASE, "two")
THREE = make_lineage(RELEASE, "three")
JUDGED_ANEW = make_lineage(RELEASE, "one", evaluator="two")
MEASURED = {"data": 1.0, "synthesis": 2.0, "training": 4.0, "package": 8.0, "answers": 16.0, "evaluation": 32.0}


def _package(version: int) -> str:
    return digest(["package", version])


def _row(
    number: int,
    action: Action,
    version: int,
    lineage: Lineage,
    replaced: int | None = None,
    *,
    against: int | None = None,
    overruled: tuple[str, ...] = (),
    age: timedelta = timedelta(),
) -> Row:
    """A row; `against` is the version that its verdict was reached against."""
    return Row(
        feature="writing",
        base_release=lineage.build["base_release"],
        action=action,
        version=version,
        lineage=lineage.build,
        evaluation=lineage.evaluation,
        evaluation_key=lineage.evaluation_key,
        package=_package(version),
        replaced=replaced,
        actor="ann",
        reason="test",
        evidence=digest(["evidence", version, lineage.evaluation_key]),
        champion=_package(against) if against else None,
        overruled=overruled,
        number=number,
        time=(datetime.now(UTC) - age).isoformat(timespec="microseconds"),
        previous=NO_ROW,
        hash=NO_ROW,
    )


def _plan(lineage: Lineage, *rows: Row, approval_days: float | None = None) -> FeaturePlan:
    return plan_feature("writing", lineage, rows, approval_days)


def test_never_built_is_stale_without_reasons() -> None:
    plan = _plan(ONE)
    assert (plan.state, plan.version, plan.compared_with, plan.reasons) == ("stale", None, None, ())
    assert plan.needs_work


def test_equal_keys_are_fresh() -> None:
    plan = _plan(ONE, _row(1, "promote", 1, ONE))
    assert (plan.state, plan.version, plan.production, plan.reasons) == ("fresh", 1, 1, ())
    assert not plan.needs_work


def test_a_changed_key_is_stale_and_named() -> None:
    plan = _plan(TWO, _row(1, "promote", 1, ONE))
    assert (plan.state, plan.version, plan.production) == ("stale", None, 1)
    assert [tuple(reason) for reason in plan.reasons] == [("data", ONE.build["data"], TWO.build["data"], None)]


def test_another_base_release_makes_stale_and_is_named() -> None:
    plan = _plan(make_lineage(NEXT), _row(1, "promote", 1, ONE))
    assert (plan.state, plan.production, plan.compared_with) == ("stale", None, 1)
    assert [tuple(reason) for reason in plan.reasons] == [("base_release", RELEASE, NEXT, None)]


def test_going_back_to_an_older_base_release_is_fresh_at_once() -> None:
    plan = _plan(ONE, _row(1, "promote", 1, ONE), _row(2, "promote", 2, make_lineage(NEXT)))
    assert (plan.state, plan.version) == ("fresh", 1)


def test_reasons_compare_with_production_not_with_a_later_rejected_build() -> None:
    plan = _plan(THREE, _row(1, "promote", 1, ONE), _row(2, "reject", 2, TWO))
    assert (plan.state, plan.compared_with, plan.reasons[0].old) == ("stale", 1, ONE.build["data"])


def test_without_any_production_reasons_compare_with_the_last_build() -> None:
    plan = _plan(THREE, _row(1, "reject", 1, ONE), _row(2, "reject", 2, TWO))
    assert (plan.state, plan.compared_with, plan.reasons[0].old) == ("stale", 2, TWO.build["data"])


def test_only_the_evaluation_key_differs_needs_evaluation() -> None:
    plan = _plan(JUDGED_ANEW, _row(1, "promote", 1, ONE))
    assert (plan.state, plan.version) == ("needs evaluation", 1)
    assert [reason.key for reason in plan.reasons] == ["code.evaluation"]


def test_of_equal_builds_the_one_in_production_is_evaluated() -> None:
    plan = _plan(JUDGED_ANEW, _row(1, "promote", 1, ONE), _row(2, "accept", 2, ONE))
    assert (plan.state, plan.version) == ("needs evaluation", 1)


def test_evaluated_anew_and_promoted_is_fresh_again() -> None:
    rows = _row(1, "promote", 1, ONE), _row(2, "promote", 1, JUDGED_ANEW)
    assert _plan(JUDGED_ANEW, *rows).state == "fresh"


def test_production_that_fails_a_new_evaluation_stays_and_is_not_tested_again() -> None:
    plan = _plan(JUDGED_ANEW, _row(1, "promote", 1, ONE), _row(2, "reject", 1, JUDGED_ANEW))
    assert (plan.state, plan.version, plan.production) == ("rejected", 1, 1)
    assert plan.blocked_by == "decision 2: test"


def test_built_and_passed_against_production_awaits_promotion() -> None:
    plan = _plan(TWO, _row(1, "promote", 1, ONE), _row(2, "accept", 2, TWO, against=1))
    assert (plan.state, plan.version, plan.production) == ("awaiting promotion", 2, 1)
    assert plan.needs_work


def test_a_champion_that_changed_since_the_test_asks_for_another_one() -> None:
    rows = (
        _row(1, "promote", 1, ONE),
        _row(2, "accept", 2, TWO, against=1),
        _row(3, "accept", 3, THREE, against=1),
        _row(4, "promote", 3, THREE, against=1, replaced=1),
    )
    plan = _plan(TWO, *rows)
    assert (plan.state, plan.version, plan.compared_with) == ("needs evaluation", 2, 2)
    assert plan.reasons == (("production", _package(1), _package(3), rows[3].time),)


def test_a_failed_version_is_rejected_and_not_rebuilt() -> None:
    plan = _plan(TWO, _row(1, "reject", 2, TWO))
    assert (plan.state, plan.version) == ("rejected", 2)
    assert not plan.needs_work


def test_a_rejected_version_is_tested_again_by_another_evaluator() -> None:
    plan = _plan(JUDGED_ANEW, _row(1, "reject", 1, ONE))
    assert (plan.state, plan.version) == ("needs evaluation", 1)


def test_killed_before_a_verdict_was_recorded_is_stale_and_found_again_by_the_run() -> None:
    assert _plan(TWO, _row(1, "promote", 1, ONE)).state == "stale"


ROLLED_BACK = (
    _row(1, "promote", 1, ONE),
    _row(2, "promote", 2, TWO, replaced=1, against=1),
    _row(3, "roll back", 1, ONE, replaced=2),
)


def test_a_rollback_is_not_undone() -> None:
    plan = _plan(TWO, *ROLLED_BACK)
    assert (plan.state, plan.version, plan.production) == ("held", 2, 1)
    assert [reason.key for reason in plan.reasons] == ["data"]
    assert plan.blocked_by is not None and plan.blocked_by.startswith("held by ann since ")
    assert _plan(ONE, *ROLLED_BACK).state == "fresh"
    assert _plan(THREE, *ROLLED_BACK).state == "stale"


def test_another_evaluation_key_does_not_clear_a_hold() -> None:
    assert _plan(make_lineage(RELEASE, "two", evaluator="two"), *ROLLED_BACK).state == "held"


def test_a_released_hold_awaits_promotion_again() -> None:
    plan = _plan(TWO, *ROLLED_BACK, _row(4, "release hold", 2, TWO, against=1))
    assert (plan.state, plan.version) == ("awaiting promotion", 2)


def test_what_was_forced_must_pass_before_a_run_promotes_it() -> None:
    rows = (*ROLLED_BACK[:1], _row(2, "promote", 2, TWO, against=1, overruled=("gate",)), *ROLLED_BACK[2:])
    plan = _plan(TWO, *rows, _row(4, "release hold", 2, TWO, against=1, overruled=("gate",)))
    assert plan.state == "needs evaluation"


def test_an_open_request_waits_for_somebody_and_an_expired_one_for_a_run() -> None:
    rows = _row(1, "promote", 1, ONE), _row(2, "request", 2, TWO, against=1, age=timedelta(days=2))
    open_ = _plan(TWO, *rows, approval_days=3)
    assert (open_.state, open_.request, open_.needs_work) == ("awaiting promotion", 2, False)
    assert open_.blocked_by is not None and open_.blocked_by.startswith("asked by ann")
    for days in (1, None):
        late = _plan(TWO, *rows, approval_days=days)
        assert (late.state, late.request, late.needs_work) == ("awaiting promotion", None, True)


@pytest.mark.parametrize(
    ("changed", "cost"),
    [("data", 63.0), ("recipe.synthesis", 62.0), ("recipe.training", 60.0), ("recipe.device", 56.0)],
)
def test_a_rebuild_costs_what_the_stages_from_the_first_changed_one_on_took(changed: str, cost: float) -> None:
    build = {name: digest(["other", name]) if name == changed else key for name, key in ONE.build.items()}
    plan = _plan(Lineage({changed: digest("new")} | build, ONE.evaluation), _row(1, "promote", 1, ONE))
    assert feature_cost(plan, MEASURED) == cost
    assert feature_cost(plan, {}) is None


def test_another_test_costs_the_tests_and_nothing_costs_nothing() -> None:
    row = _row(1, "promote", 1, ONE)
    assert feature_cost(_plan(JUDGED_ANEW, row), MEASURED) == 48.0
    assert feature_cost(_plan(ONE, row), MEASURED) == 0.0
    assert base_cost(plan_base({"base_model": digest("m")}, []), {"recovery": 3.0, "tradeoff": 9.0}) == 3.0


def test_json_form_is_stable() -> None:
    plan = dataclasses.replace(_plan(TWO, _row(1, "promote", 1, ONE)), cost_seconds=61.04, blocked_by="it").to_json()
    assert plan == {
        "feature": "writing",
        "state": "stale",
        "base_release": RELEASE,
        "lineage_key": TWO.key,
        "evaluation_key": TWO.evaluation_key,
        "version": None,
        "production": 1,
        "compared_with": 1,
        "reasons": [{"key": "data", "old": ONE.build["data"], "new": TWO.build["data"], "changed": None}],
        "request": None,
        "cost_seconds": 61.0,
        "blocked_by": "it",
    }


def test_good_versions_after_rollbacks() -> None:
    rows = [_row(1, "promote", 1, ONE), _row(2, "promote", 2, TWO), _row(3, "promote", 3, THREE)]
    assert good_versions(rows, RELEASE) == [1, 2, 3]
    back = [*rows, _row(4, "roll back", 2, TWO, 3)]
    assert good_versions(back, RELEASE) == [1, 2]
    again = [*back, _row(5, "promote", 3, THREE)]
    assert good_versions(again, RELEASE) == [1, 2, 3]
    assert (list(holds(back, RELEASE)), list(holds(again, RELEASE))) == ([3], [])
    to_first = [*rows, _row(4, "roll back", 1, ONE, 3)]
    assert good_versions(to_first, RELEASE) == [1]
    assert holds(rows, NEXT) == {}
    current = production(to_first, RELEASE)
    assert current is not None
    assert current.version == 1


def test_plan_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _plan(ONE).state = "fresh"  # type: ignore[misc]


LINEAGES = [make_lineage(release, data) for release in (RELEASE, NEXT) for data in ("one", "two", "three")]
ACTIONS: list[Action] = ["accept", "reject", "request", "approve", "promote", "roll back", "release hold"]
steps = st.tuples(
    st.sampled_from(["writing", "summarization"]),
    st.sampled_from(ACTIONS),
    st.integers(0, len(LINEAGES) - 1),
    st.none() | st.integers(0, len(LINEAGES) - 1),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=20))
def test_the_rows_that_decide_give_the_plan_that_all_rows_give(
    made: list[tuple[str, Action, int, int | None]],
) -> None:
    """One query over the heads instead of the whole history: same states, same reasons, same serving versions."""
    ledger = Ledger("sqlite://")
    for feature, action, one, other in made:
        replaced = other + 1 if other is not None and action in ("promote", "roll back") else None
        champion = _package(other + 1) if other is not None else None
        ledger.append(
            make_decision(feature, action, one + 1, LINEAGES[one], replaced=replaced, champion=champion, actor="ann")
        )
    for lineage in (*LINEAGES, make_lineage(RELEASE, "never built"), make_lineage(NEXT, "one", evaluator="two")):
        deciding = ledger.deciding([lineage.key])
        for feature in ("writing", "summarization"):
            rows = ledger.rows(feature)
            expected = plan_feature(feature, lineage, rows, 1.0)
            assert plan_feature(feature, lineage, deciding.get(feature, []), 1.0) == expected
    for feature in ("writing", "summarization", BASE):
        rows = ledger.rows(feature)
        serving = {row.base_release: row for row in ledger.serving().get(feature, [])}
        assert serving == {r: row for r in (RELEASE, NEXT) if (row := production(rows, r)) is not None}
        assert ledger.heads().get(feature) == ((rows[-1].number, rows[-1].hash) if rows else None)
