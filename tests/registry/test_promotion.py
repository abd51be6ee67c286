"""Promotions and rollbacks over the real MLflow, ledger and channel: checked first, then all three agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters.device.base_package import verify_base_package
from adapters.device.package import verify_package
from infra.errors import CheckFailed, FactoryError
from registry.channel import Publication
from registry.decisions import BASE, Decision
from registry.ledger import LedgerConflict
from registry.plan import plan_feature
from registry.projection import repair
from registry.promotion import accept, promote, promote_release, reject, reject_release, release_hold, rollback
from tests.registry.conftest import Place
from tests.registry.samples import ACTOR, make_lineage, release_lineage

pytestmark = pytest.mark.servers
FEATURE = "summarization"
WHO = {"actor": ACTOR, "reason": "test"}


def _state(place: Place, release: tuple[str, Path], data: str) -> str:
    return plan_feature(FEATURE, make_lineage(release[0], data), place.registry.ledger.rows(FEATURE)).state


def _agree(place: Place, release: tuple[str, Path], version: int, alias: str = "production") -> None:
    """Ledger, alias and channel name the same version."""
    row = place.registry.ledger.production(FEATURE, release[0])
    pointer = place.registry.channel.pointer(FEATURE, release[0])
    assert row is not None
    assert pointer is not None
    assert (row.version, pointer.version, _aliases(place)[alias]) == (version, version, version)
    assert (pointer.number, pointer.row, pointer.package) == (row.number, row.hash, row.package)
    rows = place.registry.ledger.rows()
    assert place.registry.channel.anchored_heads() == {row.feature: (row.number, row.hash) for row in rows}
    published = verify_package(place.device().pull(FEATURE, release[0]).folder)
    assert (published.version, published.digest) == (version, row.package)
    assert place.registry.ledger.verify() == []


def _aliases(place: Place, model: str = "adapter-summarization") -> dict[str, int]:
    import mlflow

    aliases = mlflow.tracking.MlflowClient(tracking_uri=place.uri).get_registered_model(model).aliases
    return {alias: int(version) for alias, version in aliases.items()}


def test_promotion_reaches_ledger_alias_and_channel(place: Place) -> None:
    release = place.release()
    version = place.version(release)
    row = promote(place.registry, FEATURE, 1, actor="ann", reason="gates passed")
    assert (row.actor, row.reason, row.evidence, row.lineage) == (
        "ann", "gates passed", version.evidence, version.lineage.build,
    )  # fmt: skip
    _agree(place, release, 1)
    place.version(release, "two")
    assert promote(place.registry, FEATURE, 2, **WHO).replaced == 1
    _agree(place, release, 2)
    assert _state(place, release, "two") == "fresh"


def test_promoting_again_writes_nothing(place: Place) -> None:
    release = place.release()
    place.version(release)
    assert promote(place.registry, FEATURE, 1, **WHO) == promote(place.registry, FEATURE, 1, **WHO)
    assert len(place.registry.ledger.rows(FEATURE)) == 1


def test_failed_gates_stop_a_promotion_and_force_is_on_record(place: Place) -> None:
    release = place.release()
    place.version(release, passed=False)
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        promote(place.registry, FEATURE, 1, **WHO)
    assert place.registry.ledger.rows(FEATURE) == []
    reject(place.registry, FEATURE, 1, **WHO)
    assert reject(place.registry, FEATURE, 1, **WHO).number == 1
    assert _state(place, release, "one") == "rejected"
    with pytest.raises(FactoryError, match="needs a reason"):
        promote(place.registry, FEATURE, 1, actor=ACTOR, reason=" ", force=True)
    row = promote(place.registry, FEATURE, 1, actor=ACTOR, reason="demo on Monday", force=True)
    assert (row.reason, row.overruled) == ("demo on Monday", ("better_than_baseline",))
    _agree(place, release, 1)


def test_a_passed_version_is_not_rejected(place: Place) -> None:
    place.version(place.release())
    with pytest.raises(FactoryError, match="passed its gates"):
        reject(place.registry, FEATURE, 1, **WHO)


def test_a_rollback_goes_back_and_holds(place: Place) -> None:
    release = place.release()
    for data in ("one", "two"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    row = rollback(place.registry, FEATURE, actor=ACTOR, reason="complaints")
    assert (row.version, row.replaced) == (1, 2)
    _agree(place, release, 1)
    assert _state(place, release, "two") == "held"
    with pytest.raises(FactoryError, match="nothing to go back to"):
        rollback(place.registry, FEATURE, **WHO)
    assert [row.version for row in release_hold(place.registry, FEATURE, **WHO)] == [2]
    assert _state(place, release, "two") == "awaiting promotion"
    with pytest.raises(FactoryError, match="no version is held"):
        release_hold(place.registry, FEATURE, **WHO)


def test_a_rollback_to_a_named_version(place: Place) -> None:
    release = place.release()
    for data in ("one", "two", "three"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    with pytest.raises(FactoryError, match="in production already"):
        rollback(place.registry, FEATURE, to=3, **WHO)
    with pytest.raises(FactoryError, match="never in production"):
        rollback(place.registry, FEATURE, to=9, **WHO)
    assert rollback(place.registry, FEATURE, to=1, **WHO).replaced == 3
    _agree(place, release, 1)


def test_a_damaged_target_stops_a_rollback_before_anything_moves(place: Place) -> None:
    release = place.release()
    for data in ("one", "two"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    first = place.registry.catalog.version(FEATURE, 1)
    (place.registry.catalog.package_folder(first) / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(FactoryError, match="not the bytes"):
        rollback(place.registry, FEATURE, **WHO)
    _agree(place, release, 2)


def test_each_base_release_keeps_its_own_version(place: Place) -> None:
    old = place.release("one")
    place.version(old)
    promote(place.registry, FEATURE, 1, **WHO)
    new = place.release("two")
    assert _aliases(place) == {f"production-{old[0][:12]}": 1}
    assert _state(place, new, "one") == "stale"
    place.version(new)
    promote(place.registry, FEATURE, 2, **WHO)
    _agree(place, new, 2)
    _agree(place, old, 1, alias=f"production-{old[0][:12]}")
    assert _aliases(place, "base-release") == {"production": 2}
    promote_release(place.registry, old[0], actor=ACTOR, reason="back")
    _agree(place, old, 1)


def test_a_base_release_is_published_without_what_devices_do_not_need(place: Place) -> None:
    key, _ = place.release()
    folder = place.device().pull_base().folder
    files = verify_base_package(folder).files
    assert place.device().pull_base(key).downloaded == 0
    assert "model.aimodel/main.mlirb" in files
    assert "palettized.safetensors" not in files
    (folder / "model.aimodel/main.mlirb").write_text("other")
    with pytest.raises(FactoryError, match=r"not what manifest\.json promises"):
        verify_base_package(folder)


def test_a_failed_base_release_is_not_promoted(place: Place) -> None:
    key, _ = place.release(promote=False, passed=False)
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        promote_release(place.registry, key, **WHO)
    row = reject_release(place.registry, key, **WHO)
    assert (row.feature, row.base_release, row.lineage) == (BASE, key, release_lineage())
    assert reject_release(place.registry, key, **WHO) == row
    assert place.registry.ledger.current_release() is None
    assert promote_release(place.registry, key, force=True, **WHO).overruled == ("better_than_baseline",)


def test_an_adapter_for_a_release_that_is_not_out_is_not_promoted(place: Place) -> None:
    place.version(place.release(promote=False))
    with pytest.raises(FactoryError, match="was never promoted"):
        promote(place.registry, FEATURE, 1, **WHO)


@pytest.mark.parametrize("reached", ["ledger", "alias", "package"])
def test_what_a_kill_left_undone_is_finished_by_the_next_command(
    place: Place, open_place: Callable[[Path], Place], reached: str
) -> None:
    release = place.release()
    version = place.version(release)
    decision = Decision(
        feature=FEATURE, base_release=release[0], action="promote", version=1, lineage=version.lineage.build,
        evaluation_key=version.lineage.evaluation_key, package=version.package, evidence=version.evidence, **WHO,
    )  # fmt: skip
    row = place.registry.ledger.append(decision)
    timestamp = place.folder / "channel/metadata/timestamp.json"
    if reached != "ledger":
        place.registry.catalog.set_production_aliases("adapter-summarization", {"production": 1})
    if reached == "package":
        # Everything is written but the timestamp, which devices begin with.
        before = timestamp.read_bytes()
        publication = Publication(row, row, place.registry.catalog.package_folder(version))
        place.registry.channel.publish([publication], {FEATURE: (row.number, row.hash)})
        timestamp.write_bytes(before)
    after = open_place(place.folder)
    assert repair(after.registry) == [f"{FEATURE} 1: promote"]
    _agree(after, release, 1)
    assert repair(after.registry) == []


def test_an_alias_moved_by_hand_is_put_back(place: Place) -> None:
    release = place.release()
    for data in ("one", "two"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    place.registry.catalog.set_production_aliases("adapter-summarization", {"production": 1})
    repair(place.registry, everything=True)
    _agree(place, release, 2)


def test_a_ledger_that_lost_its_last_rows_is_noticed(place: Place) -> None:
    release = place.release()
    for data in ("one", "two"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    with sa.create_engine(f"sqlite:///{place.folder / 'ledger.db'}").begin() as connection:
        connection.execute(sa.text("DROP TRIGGER ledger_refuses_delete"))
        connection.execute(sa.text("DELETE FROM ledger WHERE feature = :feature AND number = 2"), {"feature": FEATURE})
    assert place.registry.ledger.verify() == []
    with pytest.raises(CheckFailed, match="follows decision 2, which the ledger does not have"):
        repair(place.registry)


def test_a_late_writer_does_not_move_the_channel_back(place: Place) -> None:
    release = place.release()
    rows = [promote(place.registry, FEATURE, place.version(release, d).version, **WHO) for d in ("one", "two")]
    package = place.registry.catalog.package_folder(place.registry.catalog.version(FEATURE, 1))
    with pytest.raises(CheckFailed, match="follows decision 2 already"):
        place.registry.channel.publish([Publication(rows[0], rows[0], package)], {})
    _agree(place, release, 2)


def test_a_decision_made_on_an_older_state_loses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    release = place.release()
    place.version(release)
    place.version(release, "two")
    checked = place.registry.catalog.gate_report

    def meanwhile(version: object) -> object:
        monkeypatch.undo()
        promote(place.registry, FEATURE, 2, actor="ben", reason="first")
        return checked(version)  # type: ignore[arg-type]

    monkeypatch.setattr(place.registry.catalog, "gate_report", meanwhile)
    with pytest.raises(LedgerConflict, match="another decision was recorded"):
        promote(place.registry, FEATURE, 1, actor="ann", reason="second")
    _agree(place, release, 2)


def test_an_unknown_version_is_one_line(place: Place) -> None:
    place.release()
    with pytest.raises(FactoryError, match="has no version 3"):
        promote(place.registry, FEATURE, 3, **WHO)


def test_base_is_only_promoted_as_a_release(place: Place) -> None:
    place.release()
    with pytest.raises(FactoryError):
        promote(place.registry, BASE, 1, **WHO)


def test_a_version_that_was_tested_against_a_former_champion_is_tested_again_first(place: Place) -> None:
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, **WHO)
    second, third = place.version(release, "two"), place.version(release, "three")
    promote(place.registry, FEATURE, 2, **WHO)
    with pytest.raises(CheckFailed, match="tested against version 1, but version 2 is in production since"):
        promote(place.registry, FEATURE, 3, **WHO)
    assert len(place.registry.ledger.rows(FEATURE)) == 2
    place.register(place.folder / "built" / third.lineage.key / "package", third.lineage)
    row = promote(place.registry, FEATURE, 3, **WHO)
    assert (row.champion, row.overruled) == (second.package, ())
    forced = promote(place.registry, FEATURE, 2, force=True, **WHO)
    assert forced.overruled == ("tested_against_production",)
    _agree(place, release, 2)


def test_what_passed_and_was_not_promoted_is_on_record_for_the_plan(place: Place) -> None:
    release = place.release()
    place.version(release)
    row = accept(place.registry, FEATURE, 1, **WHO)
    assert (row.action, accept(place.registry, FEATURE, 1, **WHO)) == ("accept", row)
    assert _state(place, release, "one") == "awaiting promotion"
    assert place.registry.channel.pointer(FEATURE, release[0]) is None
    place.version(release, "two", passed=False)
    with pytest.raises(CheckFailed, match="failed better_than_baseline"):
        accept(place.registry, FEATURE, 2, **WHO)


def test_a_run_that_was_overtaken_decides_nothing(place: Place) -> None:
    """Fencing: a run that began before a newer decision, a zombie for instance, cannot publish over it."""
    release = place.release()
    base_seen = len(place.registry.ledger.rows("base"))
    promote(place.registry, FEATURE, place.version(release).version, actor="ann", reason="first", seen=0)
    second, third = place.version(release, "two"), place.version(release, "three")
    failed = place.version(release, "four", passed=False)
    promote(place.registry, FEATURE, third.version, actor="ann", reason="newer", seen=1)
    rows, pointer = place.registry.ledger.rows(FEATURE), place.registry.channel.pointer(FEATURE, release[0])
    who = {"actor": "zombie", "reason": "late"}
    for late in (
        lambda: promote(place.registry, FEATURE, second.version, **who, force=True, seen=1),
        lambda: accept(place.registry, FEATURE, second.version, **who, seen=1),
        lambda: reject(place.registry, FEATURE, failed.version, **who, seen=1),
    ):
        with pytest.raises(LedgerConflict, match=r"decision 2 .* was made after this run began, which saw 1"):
            late()
    assert place.registry.ledger.rows(FEATURE) == rows
    assert place.registry.channel.pointer(FEATURE, release[0]) == pointer
    again = promote(place.registry, FEATURE, third.version, actor="ann", reason="newer", seen=1)
    assert again == rows[-1], "its own decision, tried again, stands"
    other, _ = place.release("two")
    with pytest.raises(LedgerConflict):
        promote_release(place.registry, release[0], **who, seen=base_seen)
    current = place.registry.ledger.current_release()
    assert current is not None and current.base_release == other
