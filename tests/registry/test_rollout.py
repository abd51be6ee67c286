"""Staged rollouts on the real MLflow, ledger and channel: a share of the devices, more of them, all, or back."""

from pathlib import Path

import pytest

from adapters.device.client import Device
from adapters.evaluation.gates import GateReport, at_least
from infra.errors import CheckFailed, FactoryError
from registry import decisions, rollout
from registry.catalog import RunContent
from registry.plan import plan_feature
from registry.projection import repair, verify
from registry.promotion import approve, promote, release_hold
from tests.registry.conftest import Place
from tests.registry.samples import ACTOR, make_lineage

pytestmark = pytest.mark.servers
FEATURE = "summarization"
WHO = {"actor": ACTOR, "reason": "test"}


def ids(place: Place, release: str) -> tuple[str, str]:
    """A device that is early for what is rolled out, and one that is late."""
    pointer = place.registry.channel.pointer(FEATURE, release)
    assert pointer is not None
    assert pointer.rollout is not None
    names = [f"device {number}" for number in range(200)]
    early = [name for name in names if pointer.version_for(name)[0] == pointer.rollout.version]
    assert 0 < len(early) < 200
    return early[0], next(name for name in names if name not in early)


def version_on(place: Place, device: str, release: str) -> int:
    folder = place.folder / device.replace(" ", "-")
    root = place.folder / "keys/roots/1.root.json"
    return Device(str(place.folder / "channel"), folder, root, device).pull(FEATURE, release).version


def state(place: Place, release: str, data: str) -> str:
    return plan_feature(FEATURE, make_lineage(release, data), place.registry.ledger.rows(FEATURE)).state


@pytest.fixture
def release(place: Place) -> str:
    """The key of a release over which version 1 is in production and version 2 has passed against it."""
    made = place.release()
    place.version(made)
    promote(place.registry, FEATURE, 1, **WHO)
    place.version(made, "two")
    return made[0]


def test_a_share_then_more_then_all(place: Place, release: str) -> None:
    row = rollout.start(place.registry, FEATURE, 2, 0.05, **WHO)
    assert (row.action, row.share, row.version) == ("rollout", 0.05, 2)
    assert state(place, release, "two") == "rolling out"
    early, late = ids(place, release)
    assert (version_on(place, early, release), version_on(place, late, release)) == (2, 1)
    assert place.registry.ledger.production(FEATURE, release).version == 1  # type: ignore[union-attr]
    assert rollout.step(place.registry, FEATURE, 0.5, **WHO).share == 0.5
    assert version_on(place, early, release) == 2, "who has it keeps it"
    done = rollout.step(place.registry, FEATURE, 1, **WHO)
    assert (done.action, done.replaced, done.share) == ("promote", 1, None)
    assert (version_on(place, early, release), version_on(place, late, release)) == (2, 2)
    assert decisions.staged(place.registry.ledger.rows(FEATURE), release) is None
    assert state(place, release, "two") == "fresh"
    assert repair(place.registry) == []


def test_a_halt_goes_back_and_holds(place: Place, release: str) -> None:
    rollout.start(place.registry, FEATURE, 2, 0.3, **WHO)
    early, _ = ids(place, release)
    assert version_on(place, early, release) == 2
    row = rollout.halt(place.registry, FEATURE, **WHO)
    assert (row.action, row.version, row.replaced) == ("roll back", 1, 2)
    assert version_on(place, early, release) == 1
    assert state(place, release, "two") == "held"
    assert decisions.good_versions(place.registry.ledger.rows(FEATURE), release) == [1]
    with pytest.raises(FactoryError, match="nothing is being rolled out"):
        rollout.halt(place.registry, FEATURE, **WHO)
    release_hold(place.registry, FEATURE, **WHO)
    assert rollout.start(place.registry, FEATURE, 2, 0.1, **WHO).share == 0.1


def test_another_version_in_production_ends_it(place: Place, release: str) -> None:
    rollout.start(place.registry, FEATURE, 2, 0.3, **WHO)
    place.version((release, place.folder / "releases/one"), "three")
    with pytest.raises(FactoryError, match="2 is being rolled out"):
        rollout.start(place.registry, FEATURE, 3, 0.3, **WHO)
    promote(place.registry, FEATURE, 3, **WHO)
    pointer = place.registry.channel.pointer(FEATURE, release)
    assert pointer is not None
    assert (pointer.version, pointer.rollout) == (3, None)


def test_it_is_checked_like_a_promotion(place: Place, release: str) -> None:
    made = release, place.folder / "releases/one"
    place.version(made, "three", passed=False)
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        rollout.start(place.registry, FEATURE, 3, 0.05, **WHO)
    with pytest.raises(FactoryError, match="in production already"):
        rollout.start(place.registry, FEATURE, 1, 0.05, **WHO)
    with pytest.raises(FactoryError, match="above 0% and below 100%"):
        rollout.start(place.registry, FEATURE, 2, 1.0, **WHO)
    with pytest.raises(FactoryError, match="nothing is being rolled out"):
        rollout.step(place.registry, FEATURE, 0.5, **WHO)
    assert [row.action for row in place.registry.ledger.rows(FEATURE)] == ["promote"]
    row = rollout.start(place.registry, FEATURE, 3, 0.05, force=True, **WHO)
    assert row.overruled == ("better_than_baseline",)
    assert rollout.step(place.registry, FEATURE, 1, **WHO).overruled == ("better_than_baseline",)


def test_a_forced_rollout_overrules_in_its_last_step_what_it_named_and_no_more(place: Place, release: str) -> None:
    place.version((release, place.folder / "releases/one"), "three", passed=False)
    rollout.start(place.registry, FEATURE, 3, 0.05, force=True, **WHO)
    catalog = place.registry.catalog
    version = catalog.version(FEATURE, 3)
    worse = GateReport("one", [at_least("better_than_baseline", 0.3, 0.9), at_least("refusals", 0.1, 0.5)], {})
    run = catalog.log_run(FEATURE, "again", RunContent())
    catalog.record_evaluation(version, run, version.lineage, worse, version.champion)
    with pytest.raises(CheckFailed, match="3 failed refusals;"):
        rollout.step(place.registry, FEATURE, 1, **WHO)
    assert [row.action for row in place.registry.ledger.rows(FEATURE)] == ["promote", "rollout"]
    forced = promote(place.registry, FEATURE, 3, force=True, **WHO)
    assert forced.overruled == ("better_than_baseline", "refusals")


def test_it_waits_for_a_second_person_where_the_recipe_asks_for_one(place: Place, release: str) -> None:
    """What is approved is the version, for the share that was asked for; the steps after it need nobody else."""
    asked = rollout.start(place.registry, FEATURE, 2, 0.05, approval_days=7, **WHO)
    assert (asked.action, asked.share) == ("request", 0.05)
    assert rollout.start(place.registry, FEATURE, 2, 0.05, approval_days=7, **WHO) == asked, (
        "asking again is asking once"
    )
    assert decisions.staged(place.registry.ledger.rows(FEATURE), release) is None
    more = rollout.start(place.registry, FEATURE, 2, 0.3, approval_days=7, **WHO)
    with pytest.raises(CheckFailed, match="cannot approve it"):
        approve(place.registry, FEATURE, 2, approval_days=7, **WHO)
    agreed = approve(place.registry, FEATURE, 2, approval_days=7, actor="ben", reason="read it")
    assert (agreed.action, agreed.share) == ("approve", 0.3)
    row = promote(place.registry, FEATURE, 2, approval_days=7, actor="run", reason="approved")
    assert (row.action, row.share) == ("rollout", 0.3)
    assert f"asked by {ACTOR} in decision {more.number}" in row.reason
    assert f"approved by ben in decision {agreed.number}" in row.reason
    early, late = ids(place, release)
    assert (version_on(place, early, release), version_on(place, late, release)) == (2, 1)
    assert rollout.step(place.registry, FEATURE, 1, **WHO).action == "promote"
    actions = [one.action for one in place.registry.ledger.rows(FEATURE)]
    assert actions == ["promote", "request", "request", "approve", "rollout", "promote"]
    assert verify(place.registry) == []


def test_an_approval_finds_no_room_if_another_version_is_rolled_out_by_then(place: Place, release: str) -> None:
    place.version((release, place.folder / "releases/one"), "three")
    rollout.start(place.registry, FEATURE, 3, 0.1, approval_days=7, **WHO)
    rollout.start(place.registry, FEATURE, 2, 0.1, **WHO)
    with pytest.raises(FactoryError, match="2 is being rolled out"):
        approve(place.registry, FEATURE, 3, approval_days=7, actor="ben", reason="read it")


def test_a_dry_run_says_what_would_start_and_writes_nothing(place: Place, release: str) -> None:
    found = rollout.propose(place.registry, FEATURE, 2, 0.05, **WHO)
    assert found.decision is not None and found.stands is None
    assert (found.decision.action, found.decision.share, found.decision.replaced) == ("rollout", 0.05, None)
    asked = rollout.propose(place.registry, FEATURE, 2, 0.05, approval_days=7, **WHO).decision
    assert asked is not None and (asked.action, asked.share) == ("request", 0.05)
    with pytest.raises(FactoryError, match="in production already"):
        rollout.propose(place.registry, FEATURE, 1, 0.05, **WHO)
    assert [row.action for row in place.registry.ledger.rows(FEATURE)] == ["promote"]
    row = rollout.start(place.registry, FEATURE, 2, 0.05, **WHO)
    assert all(getattr(row, name) == value for name, value in found.decision.model_dump().items())


def test_the_first_version_of_a_feature_is_promoted(place: Place) -> None:
    made: tuple[str, Path] = place.release()
    place.version(made)
    with pytest.raises(FactoryError, match="nothing else is in production"):
        rollout.start(place.registry, FEATURE, 1, 0.05, **WHO)
