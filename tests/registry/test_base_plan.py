"""The base release's plan: missing, fresh, stale with reasons, rejected."""

from infra.canonical import digest
from registry.base_plan import plan_base
from registry.decisions import NO_ROW, Action, Row

OLD = {"base_model": "a", "palettized": "b"}
NEW = {"base_model": "c", "palettized": "b"}


def row(number: int, action: Action, lineage: dict[str, str]) -> Row:
    return Row(
        feature="base",
        base_release=digest(lineage),
        action=action,
        version=number,
        lineage=lineage,
        package="0" * 64,
        actor="ann",
        reason="r",
        number=number,
        time="2026-01-01T00:00:00+00:00",
        previous=NO_ROW,
        hash=NO_ROW,
    )


def test_nothing_is_known_yet() -> None:
    assert plan_base(None, []).state == "missing"
    assert plan_base(OLD, []).state == "missing"
    assert plan_base(OLD, []).key == digest(OLD)


def test_the_same_lineage_is_fresh() -> None:
    plan = plan_base(OLD, [row(1, "promote", OLD)])
    assert (plan.state, plan.version, plan.needs_work) == ("fresh", 1, False)


def test_another_lineage_is_stale_and_says_which_key() -> None:
    plan = plan_base(NEW, [row(1, "promote", OLD)])
    assert (plan.state, plan.needs_work) == ("stale", True)
    assert plan.to_json()["reasons"] == [{"key": "base_model", "old": "a", "new": "c", "changed": None}]


def test_what_failed_its_gates_is_not_made_again() -> None:
    plan = plan_base(NEW, [row(1, "promote", OLD), row(2, "reject", NEW)])
    assert (plan.state, plan.version, plan.needs_work) == ("rejected", 1, False)
