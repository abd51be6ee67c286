"""What a channel no longer names goes after a while; what devices need, or are about to need, stays."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from infra.errors import CheckFailed, FactoryError
from registry.channel import Publication, upkeep
from registry.channel.metadata import utc_now
from registry.channel.pruning import prune
from tests.registry.workshop import SUMMARIES, Workshop

DAY = timedelta(days=1)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A channel that was published three times, ten days ago, and whose root was then renewed."""
    shop = Workshop(tmp_path, now=lambda: utc_now() - timedelta(days=10))
    release = shop.release()
    shop.promote(release, version=1)
    shop.promote(release, version=2)
    shop.now = utc_now
    shop.channel.repository.commit(lambda draft, _: draft.renew.update(("timestamp", "feature-base")))
    age(shop.folder / "channel", 10)
    return shop


def age(folder: Path, days: float) -> None:
    when = (utc_now() - timedelta(days=days)).timestamp()
    for path in folder.rglob("*"):
        os.utime(path, (when, when))


def test_former_metadata_and_withdrawn_packages_go_and_devices_go_on(shop: Workshop) -> None:
    device = shop.device()
    device.pull_base()
    assert device.pull(SUMMARIES).version == 2
    before = {one.key for one in shop.channel.repository.store.files()}
    planned = prune(shop.channel.repository, DAY, dry_run=True)
    assert {one.key for one in shop.channel.repository.store.files()} == before
    gone = prune(shop.channel.repository, DAY)
    assert gone == planned
    kept = {one.key for one in shop.channel.repository.store.files()}
    assert kept == before - {one.key for one in gone}
    assert [key for key in kept if key.startswith(f"targets/{SUMMARIES}/") and "/1/" in key] == []
    assert sum(key.endswith(".snapshot.json") for key in kept) == 1
    assert sum(key.endswith(".root.json") for key in kept) == 1
    assert prune(shop.channel.repository, DAY) == []
    assert device.pull(SUMMARIES).downloaded == 0
    new = shop.device("new")
    assert (new.pull_base().version, new.pull(SUMMARIES).version) == (1, 2)


def test_every_root_stays_for_devices_that_come_late(shop: Workshop) -> None:
    late = shop.device("late")
    late.pull_base()
    for _ in range(2):
        upkeep.rotate(shop.channel.repository, "root")
    upkeep.rotate(shop.channel.repository, "timestamp")
    age(shop.folder / "channel", 10)
    prune(shop.channel.repository, DAY)
    assert late.pull(SUMMARIES).version == 2


def test_what_is_younger_than_the_grace_period_stays(shop: Workshop) -> None:
    """A publication that is under way has brought its package, and nothing names it yet."""
    stray = shop.folder / "channel/targets/summarization/x/3/aa.adapter_model.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"on its way")
    old = shop.folder / "channel/targets/summarization/x/3/bb.adapter_model.safetensors"
    old.write_bytes(b"of a publication that was killed")
    os.utime(old, (1, 1))
    (shop.folder / "channel/README").write_text("not ours", "utf-8")
    os.utime(shop.folder / "channel/README", (1, 1))
    gone = {one.key for one in prune(shop.channel.repository, DAY)}
    assert "targets/summarization/x/3/bb.adapter_model.safetensors" in gone
    assert stray.exists() and (shop.folder / "channel/README").exists()
    assert prune(shop.channel.repository, timedelta(days=20)) == []


def test_a_version_goes_back_into_production_after_its_files_are_gone(shop: Workshop) -> None:
    release = shop.folder / "releases/one"
    key = shop.ledger.rows("base")[0].base_release
    prune(shop.channel.repository, DAY)
    package, content = shop.package((key, release), version=1)
    back = shop.decide(SUMMARIES, key, 1, content, "roll back")
    shop.channel.publish([Publication(back, back, package)], shop.heads())
    device = shop.device()
    device.pull_base()
    assert device.pull(SUMMARIES).version == 1


def test_what_is_published_while_it_is_removed_is_named(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    key = shop.ledger.rows("base")[0].base_release
    package, content = shop.package((key, shop.folder / "releases/one"), version=1)
    repository = shop.channel.repository
    remove = repository.store.remove

    def late(file: str) -> None:
        monkeypatch.setattr(repository.store, "remove", remove)
        back = shop.decide(SUMMARIES, key, 1, content, "roll back")
        shop.channel.publish([Publication(back, back, package)], shop.heads())
        remove(file)

    monkeypatch.setattr(repository.store, "remove", late)
    with pytest.raises(CheckFailed, match="was published while it was removed; `factory ledger repair`"):
        prune(repository, DAY)


def test_a_channel_that_was_tampered_with_is_not_pruned(shop: Workshop) -> None:
    metadata = shop.folder / "channel/metadata"
    shutil.copyfile(next(metadata.glob("*.root.json")), metadata / "timestamp.json")
    before = {one.key for one in shop.channel.repository.store.files()}
    with pytest.raises(FactoryError, match="not what this channel's keys signed"):
        prune(shop.channel.repository, DAY)
    assert {one.key for one in shop.channel.repository.store.files()} == before
