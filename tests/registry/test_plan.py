"""The plan: every state from the inputs that define it, without a database or MLflow."""

import dataclasses

import pytest

from adapters.lineage import Lineage
from infra.canonical import digest
from registry.decisions import NO_ROW, Action, Row, good_versions, holds, production
from registry.plan import FeaturePlan, plan_feature, settled_plan
from registry.versions import Version
from tests.registry.samples import make_lineage

RELEASE, NEXT = digest("release"), digest("next release")
ONE = make_lineage(RELEASE, "one")
TWO = make_lineage(RELEASE, "two")
JUDGED_ANEW = make_lineage(RELEASE, "one", evaluator="two")


def _version(number: int, lineage: Lineage, passed: bool = True) -> Version:
    evidence = digest(["evidence", number])
    return Version("writing", number, lineage, digest(["package", number]), passed, evidence, "run", "2026-11-23")


def _rows(*steps: tuple[Action, int, Lineage] | tuple[Action, int, Lineage, int]) -> list[Row]:
    """Rows of (action, version, lineage, replaced)."""
    return [
        Row(
            feature="writing",
            base_release=lineage.build["base_release"],
            action=action,
            version=version,
            lineage=lineage.build,
            evaluation_key=lineage.evaluation_key,
            package=digest(["package", version]),
            replaced=replaced[0] if replaced else None,
            actor="tester",
            reason="test",
            number=number,
            time="2026-11-23T00:00:00+00:00",
            previous=NO_ROW,
            hash=NO_ROW,
        )
        for number, (action, version, lineage, *replaced) in enumerate(steps, start=1)
    ]


def _plan(lineage: Lineage, rows: list[Row], *versions: Version) -> FeaturePlan:
    return plan_feature("writing", lineage, rows, versions)


def test_never_built_is_stale_without_reasons() -> None:
    plan = _plan(ONE, [])
    assert (plan.state, plan.version, plan.compared_with, plan.reasons) == ("stale", None, None, ())
    assert plan.needs_work


def test_equal_keys_are_fresh() -> None:
    plan = _plan(ONE, _rows(("promote", 1, ONE)), _version(1, ONE))
    assert (plan.state, plan.version, plan.production, plan.reasons) == ("fresh", 1, 1, ())
    assert not plan.needs_work


def test_a_changed_key_is_stale_and_named() -> None:
    plan = _plan(TWO, _rows(("promote", 1, ONE)), _version(1, ONE))
    assert (plan.state, plan.version, plan.production) == ("stale", None, 1)
    assert [tuple(reason) for reason in plan.reasons] == [("data", ONE.build["data"], TWO.build["data"])]


def test_another_base_release_makes_stale_and_is_named() -> None:
    plan = _plan(make_lineage(NEXT), _rows(("promote", 1, ONE)), _version(1, ONE))
    assert (plan.state, plan.production, plan.compared_with) == ("stale", None, 1)
    assert [tuple(reason) for reason in plan.reasons] == [("base_release", RELEASE, NEXT)]


def test_going_back_to_an_older_base_release_is_fresh_at_once() -> None:
    newer = make_lineage(NEXT)
    rows = _rows(("promote", 1, ONE), ("promote", 2, newer))
    assert _plan(ONE, rows, _version(1, ONE), _version(2, newer)).version == 1
    assert _plan(ONE, rows, _version(1, ONE), _version(2, newer)).state == "fresh"


def test_reasons_compare_with_production_not_with_a_later_rejected_build() -> None:
    three = make_lineage(RELEASE, "three")
    rows = _rows(("promote", 1, ONE), ("reject", 2, TWO))
    plan = _plan(three, rows, _version(1, ONE), _version(2, TWO, passed=False))
    assert (plan.state, plan.compared_with, plan.reasons[0].old) == ("stale", 1, ONE.build["data"])


def test_only_the_evaluation_key_differs_needs_evaluation() -> None:
    plan = _plan(JUDGED_ANEW, _rows(("promote", 1, ONE)), _version(1, ONE))
    assert (plan.state, plan.version) == ("needs evaluation", 1)
    assert [reason.key for reason in plan.reasons] == ["code.evaluation"]


def test_of_equal_builds_the_one_in_production_is_evaluated() -> None:
    plan = _plan(JUDGED_ANEW, _rows(("promote", 1, ONE)), _version(1, ONE), _version(2, ONE))
    assert (plan.state, plan.version) == ("needs evaluation", 1)


def test_evaluated_anew_and_promoted_is_fresh_again() -> None:
    rows = _rows(("promote", 1, ONE), ("promote", 1, JUDGED_ANEW))
    assert _plan(JUDGED_ANEW, rows, _version(1, JUDGED_ANEW)).state == "fresh"


def test_production_that_fails_a_new_evaluation_stays_and_is_not_tested_again() -> None:
    rows = _rows(("promote", 1, ONE), ("reject", 1, JUDGED_ANEW))
    plan = _plan(JUDGED_ANEW, rows, _version(1, JUDGED_ANEW, passed=False))
    assert (plan.state, plan.version, plan.production) == ("rejected", 1, 1)


def test_built_and_passed_awaits_promotion() -> None:
    plan = _plan(TWO, _rows(("promote", 1, ONE)), _version(1, ONE), _version(2, TWO))
    assert (plan.state, plan.version, plan.production) == ("awaiting promotion", 2, 1)
    assert plan.needs_work


def test_a_failed_version_is_rejected_and_not_rebuilt() -> None:
    plan = _plan(TWO, _rows(("reject", 2, TWO)), _version(2, TWO, passed=False))
    assert (plan.state, plan.version) == ("rejected", 2)
    assert not plan.needs_work


def test_a_rejected_version_is_tested_again_by_another_evaluator() -> None:
    plan = _plan(JUDGED_ANEW, _rows(("reject", 1, ONE)), _version(1, ONE, passed=False))
    assert (plan.state, plan.version) == ("needs evaluation", 1)


def test_killed_before_the_rejection_was_recorded_is_resumed() -> None:
    plan = _plan(TWO, [], _version(1, TWO, passed=False))
    assert (plan.state, plan.version) == ("needs evaluation", 1)


def test_a_rollback_is_not_undone() -> None:
    rows = _rows(("promote", 1, ONE), ("promote", 2, TWO), ("roll back", 1, ONE, 2))
    built = (_version(1, ONE), _version(2, TWO))
    plan = _plan(TWO, rows, *built)
    assert (plan.state, plan.version, plan.production) == ("held", 2, 1)
    assert [reason.key for reason in plan.reasons] == ["data"]
    assert _plan(ONE, rows, *built).state == "fresh"
    assert _plan(make_lineage(RELEASE, "three"), rows, *built).state == "stale"


def test_another_evaluation_key_does_not_clear_a_hold() -> None:
    rows = _rows(("promote", 1, ONE), ("promote", 2, TWO), ("roll back", 1, ONE, 2))
    anew = make_lineage(RELEASE, "two", evaluator="two")
    assert _plan(anew, rows, _version(1, ONE), _version(2, TWO)).state == "held"


def test_a_released_hold_awaits_promotion_again() -> None:
    rows = _rows(("promote", 1, ONE), ("promote", 2, TWO), ("roll back", 1, ONE, 2), ("release hold", 2, TWO))
    assert _plan(TWO, rows, _version(1, ONE), _version(2, TWO)).state == "awaiting promotion"


@pytest.mark.parametrize("lineage", [ONE, TWO])
def test_the_ledger_alone_settles_what_needs_no_work(lineage: Lineage) -> None:
    rows = _rows(("promote", 1, ONE), ("promote", 2, TWO), ("roll back", 1, ONE, 2))
    assert settled_plan("writing", lineage, rows) == _plan(lineage, rows, _version(1, ONE), _version(2, TWO))
    assert settled_plan("writing", make_lineage(RELEASE, "three"), rows) is None


def test_json_form_is_stable() -> None:
    plan = _plan(TWO, _rows(("promote", 1, ONE)), _version(1, ONE)).to_json()
    assert plan == {
        "feature": "writing",
        "state": "stale",
        "base_release": RELEASE,
        "lineage_key": TWO.key,
        "evaluation_key": TWO.evaluation_key,
        "version": None,
        "production": 1,
        "compared_with": 1,
        "reasons": [{"key": "data", "old": ONE.build["data"], "new": TWO.build["data"]}],
    }


def test_good_versions_after_rollbacks() -> None:
    three = make_lineage(RELEASE, "three")
    rows = _rows(("promote", 1, ONE), ("promote", 2, TWO), ("promote", 3, three))
    assert good_versions(rows, RELEASE) == [1, 2, 3]
    back = [*rows, *_rows(("roll back", 2, TWO, 3))]
    assert good_versions(back, RELEASE) == [1, 2]
    again = [*back, *_rows(("promote", 3, three))]
    assert good_versions(again, RELEASE) == [1, 2, 3]
    assert (list(holds(back, RELEASE)), list(holds(again, RELEASE))) == ([3], [])
    to_first = [*rows, *_rows(("roll back", 1, ONE, 3))]
    assert good_versions(to_first, RELEASE) == [1]
    assert holds(rows, NEXT) == {}
    current = production(to_first, RELEASE)
    assert current is not None
    assert current.version == 1


def test_plan_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _plan(ONE, []).state = "fresh"  # type: ignore[misc]
