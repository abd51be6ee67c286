"""A second pair of eyes: a promotion waits for somebody else, in time, and is checked again when it is approved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import CheckFailed, FactoryError
from registry.plan import plan_feature
from registry.projection import unfinished, verify
from registry.promotion import approve, promote, propose, reject, rollback
from tests.registry.conftest import Place
from tests.registry.samples import make_lineage

pytestmark = pytest.mark.servers
FEATURE = "summarization"
WEEK = 7.0


def _ask(place: Place, version: int, actor: str = "ann", days: float | None = WEEK, **more: Any) -> Any:
    return promote(place.registry, FEATURE, version, actor=actor, reason="ready to ship", approval_days=days, **more)


def _approve(place: Place, version: int, actor: str = "ben", days: float = WEEK) -> Any:
    """Agree, and let the factory carry it out."""
    agreed = approve(place.registry, FEATURE, version, actor=actor, reason="looks right", approval_days=days)
    assert agreed.action == "approve"
    release = place.registry.ledger.current_release()
    assert release is not None
    lineage = place.registry.catalog.version(FEATURE, version).lineage
    plan = plan_feature(FEATURE, lineage, place.registry.ledger.rows(FEATURE), days)
    assert (plan.state, plan.version, plan.needs_work) == ("awaiting promotion", version, True)
    return promote(place.registry, FEATURE, version, actor="factory", reason="a run", approval_days=days)


def test_a_request_changes_nothing_until_somebody_else_approves(place: Place) -> None:
    release = place.release()
    place.version(release)
    request = _ask(place, 1)
    assert (request.action, request.actor) == ("request", "ann")
    assert _ask(place, 1) == request, "asking again is asking once"
    assert place.registry.ledger.production(FEATURE, release[0]) is None
    assert place.registry.channel.pointer(FEATURE, release[0]) is None
    rows = place.registry.ledger.rows(FEATURE)
    assert plan_feature(FEATURE, make_lineage(release[0]), rows, WEEK).request == 1
    with pytest.raises(CheckFailed, match=r"ann asked for it .* cannot approve it"):
        _approve(place, 1, actor="ann")
    assert _approve(place, 1).action == "promote"
    actions = [(row.number, row.action, row.actor) for row in place.registry.ledger.rows(FEATURE)]
    assert actions == [(1, "request", "ann"), (2, "approve", "ben"), (3, "promote", "factory")]
    pointer = place.registry.channel.pointer(FEATURE, release[0])
    assert pointer is not None and (pointer.version, pointer.number) == (1, 3)
    assert place.registry.ledger.rows(FEATURE)[-1].reason == (
        "ready to ship (asked by ann in decision 1); looks right; approved by ben in decision 2"
    )
    with pytest.raises(FactoryError, match="no request is open"):
        _approve(place, 1)
    assert verify(place.registry) == []


def test_a_request_expires(place: Place) -> None:
    place.version(place.release())
    _ask(place, 1)
    with pytest.raises(FactoryError, match="no request is open"):
        _approve(place, 1, days=1e-9)
    assert _ask(place, 1, days=1e-9).number == 2, "what has expired is asked for anew"
    assert _approve(place, 1).number == 4


def test_a_rejection_closes_a_request(place: Place) -> None:
    release = place.release()
    version = place.version(release)
    _ask(place, 1)
    place.register(place.folder / "built" / version.lineage.key / "package", version.lineage, passed=False)
    reject(place.registry, FEATURE, 1, actor="ann", reason="failed")
    with pytest.raises(FactoryError, match="no request is open"):
        _approve(place, 1)


def test_an_approval_checks_again_against_what_is_in_production_by_then(place: Place) -> None:
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, actor="ann", reason="first")
    place.version(release, "two")
    place.version(release, "three")
    _ask(place, 2)
    promote(place.registry, FEATURE, 3, actor="ann", reason="meanwhile")
    with pytest.raises(CheckFailed, match="tested against version 1, but version 3 is in production"):
        _approve(place, 2)
    assert [row.action for row in place.registry.ledger.rows(FEATURE)] == ["promote", "request", "promote"]


def test_a_forced_request_overrules_what_it_named_and_no_more(place: Place) -> None:
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, actor="ann", reason="first")
    place.version(release, "two", passed=False)
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        _ask(place, 2)
    assert _ask(place, 2, force=True).overruled == ("better_than_baseline",)
    assert _approve(place, 2).overruled == ("better_than_baseline",)
    place.version(release, "three", passed=False)
    _ask(place, 3, force=True)
    rollback(place.registry, FEATURE, actor="ann", reason="complaints")
    with pytest.raises(CheckFailed, match="tested against version 2, but version 1"):
        _approve(place, 3)


def test_what_was_not_approved_is_asked_for_anew_even_by_force(place: Place) -> None:
    """An approval covers what speaks against the version when it is given; whatever does so later is a new request."""
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, actor="ann", reason="first")
    place.version(release, "two")
    place.version(release, "three")
    _ask(place, 2)
    approve(place.registry, FEATURE, 2, actor="ben", reason="clean", approval_days=WEEK)
    promote(place.registry, FEATURE, 3, actor="ann", reason="meanwhile")
    with pytest.raises(CheckFailed, match="tested against version 1, but version 3"):
        _ask(place, 2)
    asked = _ask(place, 2, force=True)
    assert (asked.action, asked.actor, asked.reason) == ("request", "ann", "ready to ship")
    assert asked.overruled == ("tested_against_production",)
    assert place.registry.ledger.production(FEATURE, release[0]).version == 3
    with pytest.raises(CheckFailed, match="cannot approve it"):
        _approve(place, 2, actor="ann")
    assert _approve(place, 2).overruled == ("tested_against_production",)


def test_new_evidence_for_what_is_in_production_needs_nobody_else(place: Place) -> None:
    release = place.release()
    version = place.version(release)
    _ask(place, 1)
    _approve(place, 1)
    anew = make_lineage(release[0], evaluator="two")
    place.register(place.folder / "built" / version.lineage.key / "package", version.lineage)
    place.registry.catalog.record_evaluation(
        version, version.run_id, anew, place.registry.catalog.gate_report(version), None
    )
    assert _ask(place, 1).action == "promote"


def test_a_dry_run_says_what_a_promotion_would_write_and_writes_nothing(
    place: Place, open_place: Callable[..., Place], tmp_path: Path
) -> None:
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, actor="ann", reason="first")
    place.version(release, "two")
    place.version(release, "three", passed=False)
    before = _files(place.folder)
    why: dict[str, Any] = {"actor": "ann", "reason": "look"}
    found = propose(place.registry, FEATURE, 2, **why)
    assert found.decision is not None and found.stands is None
    assert (found.decision.action, found.decision.version, found.decision.replaced) == ("promote", 2, 1)
    asked = propose(place.registry, FEATURE, 2, approval_days=WEEK, **why).decision
    assert asked is not None and asked.action == "request"
    stands = propose(place.registry, FEATURE, 1, **why).stands
    assert stands is not None and stands.number == 1
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        propose(place.registry, FEATURE, 3, **why)
    forced = propose(place.registry, FEATURE, 3, force=True, **why).decision
    assert forced is not None and forced.overruled == ("better_than_baseline",)
    assert unfinished(place.registry) == []
    assert _files(place.folder) == before
    row = promote(place.registry, FEATURE, 2, **why)
    assert all(getattr(row, name) == value for name, value in found.decision.model_dump().items())


def _files(folder: Path) -> dict[str, bytes]:
    paths = [folder / "ledger.db", *(folder / "channel").rglob("*")]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}
