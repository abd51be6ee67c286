"""The ledger against the channel, and what is put right from it: every kind of damage, on the real MLflow."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.errors import CheckFailed, FactoryError
from registry import rollout
from registry.catalog import RunContent
from registry.projection import repair_from_ledger, verify
from registry.promotion import promote, rollback
from tests.registry.conftest import Place
from tests.registry.decider import FEATURE, WHO
from tests.registry.samples import make_report

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, open_place: Callable[..., Place]) -> Place:
    """A registry with versions 1 and 2 promoted, one after the other."""
    place = open_place(tmp_path_factory.mktemp("repair") / "template")
    release = place.release()
    for data in ("one", "two"):
        promote(place.registry, FEATURE, place.version(release, data).version, **WHO)
    return place


@pytest.fixture
def place(template: Place, tmp_path: Path, open_place: Callable[..., Place]) -> Place:
    """A copy that changes alone."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("ledger.db", "mlflow.db"):
        shutil.copyfile(template.folder / name, folder / name)
    for name in ("channel", "keys"):
        shutil.copytree(template.folder / name, folder / name)
    return open_place(folder)


def _target(place: Place, pattern: str) -> Path:
    """The newest file below the feature's folder in the channel with such a name."""
    found = (place.folder / "channel/targets" / FEATURE).rglob(pattern)
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _in_database(place: Place, statement: str) -> None:
    """What somebody with access to the database can do."""
    with sa.create_engine(f"sqlite:///{place.folder / 'ledger.db'}").begin() as connection:
        for action in ("update", "delete"):
            connection.execute(sa.text(f"DROP TRIGGER IF EXISTS ledger_refuses_{action}"))
        connection.execute(sa.text(statement))


def test_a_ledger_whose_last_rows_were_cut_off_is_found_and_nothing_is_repaired_from_it(place: Place) -> None:
    assert verify(place.registry) == []
    _in_database(place, f"DELETE FROM ledger WHERE feature = '{FEATURE}' AND number = 2")
    (finding,) = verify(place.registry)
    assert str(finding).startswith(f"{FEATURE} row 1: the ledger ends here, rows up to 2 are cut off")
    with pytest.raises(CheckFailed, match="bring it back from its backup"):
        repair_from_ledger(place.registry)
    with pytest.raises(CheckFailed, match="follows decision 2, which the ledger does not have"):
        rollback(place.registry, FEATURE, **WHO)


def _roll_back_and_take_the_anchor_away(place: Place, with_timestamp: str) -> None:
    """A decision, and then the channel's newest timestamp is "missing", or the "former" one stands there again."""
    timestamp = place.folder / "channel/metadata/timestamp.json"
    former = timestamp.read_bytes()
    rollback(place.registry, FEATURE, **WHO)
    if with_timestamp == "former":
        timestamp.write_bytes(former)
    else:
        timestamp.unlink()


@pytest.mark.parametrize("with_timestamp", ["missing", "former"])
def test_rows_that_were_cut_off_together_with_their_anchor_are_found(place: Place, with_timestamp: str) -> None:
    """What was seen of the channel is kept beside the keys, so that taking the anchor away hides nothing."""
    _roll_back_and_take_the_anchor_away(place, with_timestamp)
    (setback,) = verify(place.registry)
    expected = "was brought back" if with_timestamp == "former" else "timestamp.json is gone"
    assert setback.feature == "channel" and expected in setback.problem
    _in_database(place, f"DELETE FROM ledger WHERE feature = '{FEATURE}' AND number = 3")
    assert [finding.feature for finding in verify(place.registry)] == [FEATURE, "channel"]
    with pytest.raises(CheckFailed, match="rows up to 3 are cut off"):
        repair_from_ledger(place.registry)
    with pytest.raises(CheckFailed, match="follows decision 3, which the ledger does not have"):
        promote(place.registry, FEATURE, 1, **WHO)


@pytest.mark.parametrize("with_timestamp", ["missing", "former"])
def test_an_anchor_that_was_taken_away_is_put_back_from_a_whole_ledger(
    place: Place, with_timestamp: str, open_place: Callable[..., Place]
) -> None:
    _roll_back_and_take_the_anchor_away(place, with_timestamp)
    again = open_place(place.folder)
    repair_from_ledger(again.registry)
    assert verify(again.registry) == []
    device = again.device()
    device.pull_base()
    assert device.pull(FEATURE).version == 1


def test_a_feature_that_was_taken_out_as_a_whole_is_found(place: Place) -> None:
    _in_database(place, f"DELETE FROM ledger WHERE feature = '{FEATURE}'")
    (finding,) = verify(place.registry)
    assert (finding.feature, finding.number) == (FEATURE, 0)


def test_an_edited_row_is_found(place: Place) -> None:
    _in_database(place, f"UPDATE ledger SET actor = 'somebody' WHERE feature = '{FEATURE}' AND number = 1")
    assert [str(finding) for finding in verify(place.registry)] == [
        f"{FEATURE} row 1: was changed after it was written"
    ]


def test_aliases_and_channel_are_put_right_whatever_was_done_to_them(place: Place) -> None:
    registry = place.registry
    model = f"adapter-{FEATURE}"
    registry.catalog.set_production_aliases(model, {"production": 1, "production-old": 2})
    pointer, weights = _target(place, "*.production.json"), _target(place, "*.adapter_model.safetensors")
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"version": 1}))
    weights.unlink()
    done = repair_from_ledger(registry)
    folder = f"{FEATURE}/{registry.ledger.rows(FEATURE)[0].base_release[:16]}"
    assert sorted(done) == [
        f"{model}: alias production 1 → 2",
        f"{model}: alias production-old 2 → None",
        f"channel: {folder}/2/adapter_model.safetensors was put back",
        f"channel: {folder}/production.json was put back",
    ]
    assert json.loads(pointer.read_text())["version"] == 2
    assert weights.is_file()
    assert repair_from_ledger(registry) == []


def test_a_channel_that_was_tampered_with_is_published_anew(place: Place) -> None:
    timestamp = place.folder / "channel/metadata/timestamp.json"
    timestamp.write_text(timestamp.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(FactoryError, match=r"remove metadata/timestamp\.json"):
        repair_from_ledger(place.registry)
    timestamp.unlink()
    assert len(repair_from_ledger(place.registry)) == 2
    assert repair_from_ledger(place.registry) == []


@pytest.mark.parametrize("error", [FactoryError("the store is away"), OSError(28, "No space left on device")])
def test_a_decision_that_could_not_be_carried_out_is_said_to_stand(
    place: Place, template: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whoever reads only that a disk is full would decide again."""
    store = place.registry.channel.repository.store

    def failing(*_: object) -> bool:
        raise error

    release = place.registry.ledger.rows("base")[0].base_release, template.folder / "releases/one"
    version = place.version(release, "three").version
    reason = "the store is away|No space left on device"
    for number, decide in (
        (3, lambda: rollout.start(place.registry, FEATURE, version, 0.1, **WHO)),
        (4, lambda: rollout.step(place.registry, FEATURE, 0.2, **WHO)),
        (5, lambda: rollback(place.registry, FEATURE, **WHO)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(store, "put", failing)
            with pytest.raises(FactoryError, match=rf"^decision {number} is recorded; .* next command: .*({reason})"):
                decide()
        assert len(place.registry.ledger.rows(FEATURE)) == number
        assert len(repair_from_ledger(place.registry)) > 0
    assert verify(place.registry) == []


def test_evidence_is_found_after_another_evaluation_replaced_it(place: Place) -> None:
    catalog = place.registry.catalog
    first = place.registry.ledger.rows(FEATURE)[0]
    assert first.evidence == make_report().digest
    version = catalog.version(FEATURE, 1)
    again = make_report(figure=0.7)
    run = catalog.log_run(FEATURE, "again", RunContent())
    catalog.record_evaluation(version, run, version.lineage, again)
    assert catalog.evidence(FEATURE, first.evidence) == make_report()
    assert catalog.evidence(FEATURE, again.digest) == again
    assert catalog.evidence(FEATURE, "f" * 64) is None
    assert catalog.evidence("unknown", again.digest) is None
