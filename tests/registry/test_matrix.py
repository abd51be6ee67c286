"""Features by base releases, and what was in production at a time: pure functions over rows."""

from registry.decisions import BASE, Row
from registry.ledger import Ledger
from registry.matrix import in_production, matrix, until
from tests.registry.samples import make_decision, make_lineage

OLD, NEW = "a" * 64, "b" * 64


def _ledger() -> Ledger:
    """Two base releases; `writing` serves both, `summarization` the old one only."""
    ledger = Ledger("sqlite://")
    ledger.append(make_decision(BASE, "promote", 1, make_lineage(OLD), evaluation=None))
    for version, data in ((1, "one"), (2, "two")):
        ledger.append(make_decision("writing", "promote", version, make_lineage(OLD, data)))
    ledger.append(make_decision("summarization", "promote", 1, make_lineage(OLD)))
    ledger.append(make_decision(BASE, "promote", 2, make_lineage(NEW), evaluation=None))
    ledger.append(make_decision("summarization", "reject", 2, make_lineage(NEW)))
    ledger.append(make_decision("writing", "promote", 3, make_lineage(NEW)))
    ledger.append(make_decision("writing", "roll back", 1, make_lineage(OLD, "one"), replaced=2))
    return ledger


def test_each_cell_names_the_version_that_serves_it_and_holes_are_listed() -> None:
    found = matrix(_ledger().serving(), ["summarization", "titles", "writing"])
    assert found.holes == [("summarization", NEW), ("titles", OLD), ("titles", NEW)]
    shown = found.to_json()
    assert [(one["base_release"], one["version"], one["current"]) for one in shown["releases"]] == [
        (OLD, 1, False),
        (NEW, 2, True),
    ]
    assert shown["features"] == [
        {"feature": "summarization", "versions": {OLD: 1}},
        {"feature": "titles", "versions": {}},
        {"feature": "writing", "versions": {OLD: 1, NEW: 3}},
    ]
    assert matrix({}, ["writing"]).to_json() == {
        "releases": [],
        "features": [{"feature": "writing", "versions": {}}],
        "rollouts": [],
        "holes": [],
    }


def test_rollouts_that_are_under_way_are_told_for_each_release() -> None:
    ledger = _ledger()
    ledger.append(make_decision("writing", "rollout", 4, make_lineage(OLD, "four"), share=0.1))
    ledger.append(make_decision("writing", "rollout", 5, make_lineage(NEW, "five"), share=0.2))
    ledger.append(make_decision("writing", "rollout", 4, make_lineage(OLD, "four"), share=0.3))
    found = ledger.rollouts()
    assert [(row.base_release, row.version, row.share) for row in found] == [(OLD, 4, 0.3), (NEW, 5, 0.2)]
    shown = matrix(ledger.serving(), ["writing"], found).to_json()["rollouts"]
    assert shown[0] == {"feature": "writing", "base_release": OLD, "version": 4, "share": 0.3}
    ledger.append(make_decision("writing", "roll back", 1, make_lineage(OLD, "one"), replaced=4))
    ledger.append(make_decision("writing", "promote", 5, make_lineage(NEW, "five")))
    assert ledger.rollouts() == []


def test_what_was_in_production_is_what_the_rows_written_by_then_say() -> None:
    rows = _ledger().rows("writing")
    served: list[dict[str, int]] = [_versions(until(rows, row.time)) for row in rows]
    assert served == [{OLD: 1}, {OLD: 2}, {OLD: 2, NEW: 3}, {OLD: 1, NEW: 3}]
    assert until(rows, "2020-01-01T00:00:00.000000+00:00") == []


def _versions(rows: list[Row]) -> dict[str, int]:
    return {row.base_release: row.version for row in in_production(rows)}
