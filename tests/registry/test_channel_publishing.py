"""The channel as a TUF repository: one signed step per publication, whatever is killed, tampered with or raced."""

import json
import os
import signal
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.device.channel_layout import Pointer, delegated_paths, pointer_path
from infra.errors import CheckFailed, FactoryError
from registry.chain import Head
from registry.channel import Publication, open_channel
from registry.channel.keys import Keys
from registry.channel.metadata import utc_now
from registry.channel.stores import FolderStore, Found
from tests.registry.workshop import SUMMARIES, WRITING, Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def metadata_files(shop: Workshop) -> set[str]:
    return {path.name for path in (shop.folder / "channel/metadata").iterdir()}


def test_what_is_published_is_signed_delegated_and_anchored(shop: Workshop) -> None:
    release = shop.release()
    row = shop.promote(release)
    other = shop.promote(release, WRITING)
    channel = shop.channel
    pointer = channel.pointer(SUMMARIES, release[0])
    assert pointer == Pointer(
        feature=SUMMARIES, base_release=release[0], version=1, package=row.package, number=1, row=row.hash
    )
    state = channel.repository.published()
    assert state.root.signed.consistent_snapshot
    assert state.delegated == ["feature-base", "feature-summarization", "feature-writing"]
    assert state.targets.signed.targets == {}
    assert channel.anchored_heads() == {
        "base": Head(1, shop.heads()["base"][1]), SUMMARIES: Head(1, row.hash), WRITING: Head(1, other.hash),
    }  # fmt: skip
    assert [(one.feature, one.version) for one in channel.pointers()] == [("base", 1), (SUMMARIES, 1), (WRITING, 1)]
    assert channel.pointer("titles", release[0]) is None


def test_publishing_again_writes_nothing(shop: Workshop) -> None:
    release = shop.release()
    publication = shop.decided(release)
    shop.channel.publish([publication], shop.heads())
    before = metadata_files(shop)
    shop.channel.publish([publication], shop.heads())
    assert metadata_files(shop) == before


def test_only_what_serves_is_signed_for(shop: Workshop) -> None:
    one, two = shop.release("one"), shop.release("two")
    for version in (1, 2):
        shop.promote(one, version=version)
    shop.promote(two, version=3)
    channel = shop.channel
    role = channel.repository.role(channel.repository.published(), "feature-summarization")
    assert role is not None
    versions = {path.split("/")[2] for path in role.signed.targets if not path.endswith("production.json")}
    assert versions == {"2", "3"}
    base = channel.repository.role(channel.repository.published(), "feature-base")
    assert base is not None
    assert {path.split("/")[1] for path in base.signed.targets} == {"production.json", one[0][:16], two[0][:16]}


def test_heads_are_anchored_without_a_package(shop: Workshop) -> None:
    release = shop.release()
    row = shop.decide(WRITING, release[0], 1, "a" * 64, action="reject")
    shop.channel.publish([], shop.heads())
    assert shop.channel.anchored_heads()[WRITING] == (1, row.hash)
    shop.channel.publish([], {WRITING: (0, "b" * 64)})  # an older view of the ledger changes nothing
    assert shop.channel.anchored_heads()[WRITING] == (1, row.hash)
    with pytest.raises(CheckFailed, match="another decision 1"):
        shop.channel.publish([], {WRITING: (1, "b" * 64)})


def test_a_package_that_the_ledger_does_not_name_is_not_published(shop: Workshop) -> None:
    release = shop.release()
    right = shop.decided(release, version=1)
    wrong, _ = shop.package(release, version=2)
    with pytest.raises(FactoryError, match="not the package that the ledger names"):
        shop.channel.publish([Publication(right.follows, right.production, wrong)], {})
    assert shop.channel.pointer(SUMMARIES, release[0]) is None


def test_keys_are_for_one_user_and_the_root_can_be_kept_elsewhere(shop: Workshop, tmp_path: Path) -> None:
    release = shop.release()
    keys = shop.folder / "keys"
    names = {path.name for path in keys.iterdir() if path.is_file()}
    assert names == {"root.pem", "targets.pem", "snapshot.pem", "timestamp.pem", "feature-base.pem"}
    assert {stat.S_IMODE((keys / name).stat().st_mode) for name in names} == {0o600}
    (tmp_path / "offline").mkdir()
    (keys / "root.pem").rename(tmp_path / "offline/root.pem")
    shop.promote(release)
    (keys / "timestamp.pem").chmod(0o644)
    with pytest.raises(FactoryError, match="every user of this machine can read"):
        shop.promote(release, WRITING)


def test_other_keys_cannot_publish_there(shop: Workshop, tmp_path: Path) -> None:
    shop.release()
    with pytest.raises(FactoryError, match="keys that are not here"):
        open_channel(shop.location, tmp_path / "none").anchored_heads()
    (shop.folder / "keys/timestamp.pem").unlink()
    Keys(shop.folder / "keys").make("timestamp")
    with pytest.raises(FactoryError, match="not the one that this channel names"):
        shop.release("two")


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets", "feature-summarization"])
def test_the_publisher_does_not_build_on_what_others_wrote(shop: Workshop, name: str) -> None:
    """Whoever may write to the store, and has no key, must not get the publisher to sign for them."""
    release = shop.release()
    shop.promote(release)
    folder = shop.folder / "channel/metadata"
    path = folder / "timestamp.json" if name == "timestamp" else sorted(folder.glob(f"*.{name}.json"))[-1]
    content = json.loads(path.read_bytes())
    content["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(content))
    with pytest.raises(FactoryError, match="not what this channel's keys signed"):
        shop.promote(release, version=2)


def test_a_lost_channel_is_published_anew_and_devices_follow(shop: Workshop) -> None:
    release = shop.release()
    publication = shop.decided(release)
    shop.channel.publish([publication], shop.heads())
    assert shop.device().pull(SUMMARIES, release[0]).version == 1
    (shop.folder / "channel").rename(shop.folder / "lost")
    shop.now = lambda: utc_now() + timedelta(hours=1)
    assert shop.channel.anchored_heads() == {}
    base = shop.ledger.rows("base")[0]
    shop.channel.publish([Publication(base, base, release[1]), publication], shop.heads())
    pulled = shop.device().pull(SUMMARIES, release[0])
    assert (pulled.version, pulled.downloaded) == (1, 0)


class KilledStore(FolderStore):
    """A folder whose process is killed before its n-th write."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.left = writes

    def _count(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def put(self, key: str, content: bytes, tag: str | None) -> bool:
        self._count()
        return super().put(key, content, tag)

    def add_file(self, key: str, source: Path, sha256: str) -> bool:
        self._count()
        return super().add_file(key, source, sha256)


def test_a_kill_before_any_write_leaves_the_old_state_or_the_new(shop: Workshop) -> None:
    release = shop.release()
    shop.promote(release)
    publications = [shop.decided(release, version=2), shop.decided(release, WRITING)]
    heads, killed, writes = shop.heads(), True, 0
    while killed:
        child = os.fork()
        if child == 0:
            channel = shop.channel
            channel.repository.store = KilledStore(shop.folder / "channel", writes)
            channel.publish(publications, heads)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        pointers = {one.feature: one.version for one in shop.channel.pointers()}
        assert pointers == {"base": 1, SUMMARIES: 1} if killed else {"base": 1, SUMMARIES: 2, WRITING: 1}
        assert shop.device().pull(SUMMARIES, release[0]).version == pointers[SUMMARIES]
        writes += 1
    # Two packages of three files and two pointers, then targets, two roles, snapshot and timestamp.
    assert writes - 1 == 8 + 5
    assert shop.channel.anchored_heads() == heads


class RacedStore(FolderStore):
    """A folder where somebody else publishes just before our timestamp is written."""

    def __init__(self, root: Path, meanwhile: list[object]) -> None:
        super().__init__(root)
        self.meanwhile = meanwhile

    def put(self, key: str, content: bytes, tag: str | None) -> bool:
        if key.endswith("timestamp.json") and self.meanwhile:
            self.meanwhile.pop()()  # type: ignore[operator]
        return super().put(key, content, tag)


def test_two_publishers_do_not_overwrite_each_other(shop: Workshop) -> None:
    release = shop.release()
    mine, theirs = shop.decided(release), shop.decided(release, WRITING)
    heads = shop.heads()
    channel = shop.channel
    channel.repository.store = RacedStore(
        shop.folder / "channel", [lambda: shop.channel.publish([theirs], {WRITING: heads[WRITING]})]
    )
    channel.publish([mine], {SUMMARIES: heads[SUMMARIES]})
    assert [one.feature for one in shop.channel.pointers()] == ["base", SUMMARIES, WRITING]
    assert shop.channel.anchored_heads() == heads
    assert shop.device().pull(WRITING, release[0]).version == 1


def test_a_late_decision_loses_the_race(shop: Workshop) -> None:
    release = shop.release()
    early, late = shop.decided(release, version=1), shop.decided(release, version=2)
    channel = shop.channel
    channel.repository.store = RacedStore(shop.folder / "channel", [lambda: shop.channel.publish([late], {})])
    with pytest.raises(CheckFailed, match="follows decision 2 already, not 1"):
        channel.publish([early], {})


def test_a_folder_moves_a_file_only_from_the_state_that_was_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "channel")
    assert store.read("metadata/a.json") is None
    assert store.put("metadata/a.json", b"1", None)
    assert not store.put("metadata/a.json", b"2", None)
    found = store.read("metadata/a.json")
    assert found is not None
    assert store.put("metadata/a.json", b"2", found.tag)
    assert not store.put("metadata/a.json", b"3", found.tag)
    assert isinstance(store.read("metadata/a.json"), Found)
    with pytest.raises(FactoryError, match="no name for a file"):
        store.put("../outside", b"", None)
    damaged = tmp_path / "channel/targets/x"
    damaged.parent.mkdir()
    damaged.write_bytes(b"changed")
    (tmp_path / "source").write_bytes(b"content")
    store.add_file("targets/x", tmp_path / "source", "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73")
    assert damaged.read_bytes() == b"content"


def test_a_feature_signs_for_its_own_paths_only() -> None:
    from tuf.api.metadata import DelegatedRole

    role = DelegatedRole("feature-writing", [], 1, True, delegated_paths("feature-writing"))
    assert role.is_delegated_path(pointer_path("writing", "a" * 64))
    assert role.is_delegated_path("writing/aaaa/1/metadata.json")
    for path in ("summarization/aaaa/production.json", "base/production.json", "writing", "x/writing/aaaa/1"):
        assert not role.is_delegated_path(path)
