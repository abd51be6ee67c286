"""Attacks on a channel, by somebody who can write to it, and who may have stolen some of its keys: each is refused.

Every test leaves a device that has version 1 as it was.
"""

import json
import shutil
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from adapters.device.base_package import MANIFEST
from adapters.device.channel_layout import POINTER, TARGETS, package_path, pointer_path
from adapters.device.client import Device, Refused
from adapters.device.package import WEIGHTS, PackagedFile, stamp_version
from infra.canonical import digest, file_digests
from infra.errors import FactoryError
from registry.channel import upkeep
from registry.channel.keys import Keys
from registry.channel.metadata import meta_of, utc_now
from tests.registry.workshop import SUMMARIES, WRITING, Workshop


class Target(Workshop):
    """The attacked channel: a base release, two features, and a device that has version 1 of the first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if not self.ledger.rows():
            release = self.release()
            self.promote(release, SUMMARIES)
            self.promote(release, WRITING)
            self.device().pull_base()
            self.device().pull(SUMMARIES)
        self.one = self.ledger.rows("base")[0].base_release, folder / "releases/one"
        self.installed = self.files_of_device()

    def files_of_device(self) -> dict[str, str]:
        return file_digests(self.folder / "device" / SUMMARIES)

    def refused(self, match: str, feature: str = SUMMARIES, kind: type[FactoryError] = Refused) -> None:
        """The device refuses for this reason, and a new device does too; what is installed stays."""
        with pytest.raises(kind, match=match) as error:
            self.device().pull(feature)
        assert "\n" not in str(error.value)
        assert self.files_of_device() == self.installed
        assert {path.name for path in (self.folder / "device").iterdir()} <= {".channel", "base", SUMMARIES}

    def file(self, target: str) -> Path:
        """The newest file of a target or role."""
        folder, _, name = target.rpartition("/")
        found = sorted((self.folder / "channel" / folder).glob(f"*.{name}"), key=lambda path: path.stat().st_mtime_ns)
        return found[-1]

    def weights(self, feature: str = SUMMARIES, version: int = 1) -> Path:
        return self.file(f"{TARGETS}/{package_path(feature, self.one[0], version)}/{WEIGHTS}")

    @property
    def timestamp(self) -> Path:
        return self.folder / "channel/metadata/timestamp.json"

    def sign(self, role: str, files: dict[str, bytes]) -> None:
        """With the stolen keys of a role, the snapshot and the timestamp: let the role sign for these files."""
        channel = self.channel
        added = {}
        for number, (target, content) in enumerate(files.items()):
            path = self.folder / f"forged-{number}"
            path.write_bytes(content)
            added[target] = TargetFile.from_file(target, str(path))
            channel._add(added[target], path, thorough=False)
        state = channel.repository.published()
        present = channel.repository.role(state, role)
        assert present is not None
        wanted = present.signed.targets | added
        channel.repository.commit(lambda draft, _: draft.targets.update({role: wanted}))

    def pointer(self, feature: str, **changes: object) -> bytes:
        found = self.channel.pointer(feature, self.one[0])
        assert found is not None
        return json.dumps(found.model_dump(mode="json") | changes).encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked") / "shop"
    Target(folder)
    return folder


@pytest.fixture
def target(made: Path, tmp_path: Path) -> Target:
    """A copy of the channel, its keys and its device."""
    shutil.copytree(made, tmp_path / "shop", symlinks=True)
    return Target(tmp_path / "shop")


def new_version(target: Target) -> Path:
    """Publish version 2, which the device would download now; returns the file of its weights."""
    target.promote(target.one, SUMMARIES, version=2)
    return target.weights(version=2)


# Without any key: whoever holds the place that the channel is served from, or the way to it


def test_a_changed_byte(target: Target) -> None:
    path = new_version(target)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    target.refused("not the bytes that were signed")


def test_a_file_cut_short(target: Target) -> None:
    path = new_version(target)
    path.write_bytes(path.read_bytes()[:-1])
    target.refused("not the bytes that were signed")


def test_a_missing_file(target: Target) -> None:
    new_version(target).unlink()
    target.refused("cannot be fetched", kind=FactoryError)


def test_an_old_state_replayed(target: Target) -> None:
    """Rollback: all files as they were, signatures and all."""
    shutil.copytree(target.folder / "channel", target.folder / "before")
    new_version(target)
    target.device().pull(SUMMARIES)
    target.installed = target.files_of_device()
    shutil.rmtree(target.folder / "channel")
    (target.folder / "before").rename(target.folder / "channel")
    target.refused(r"\(rollback\)")


def test_a_state_held_back(target: Target) -> None:
    """Freeze: nothing new is let through, until the signatures have expired."""
    target.now = lambda: utc_now() - timedelta(days=8)
    target.channel.repository.commit(lambda draft, _: draft.renew.add("timestamp"))
    for name in ("timestamp", "snapshot"):
        (target.folder / f"device/.channel/metadata/{name}.json").unlink()
    target.refused(r"expired.*\(freeze\)")


def test_metadata_of_two_states_mixed(target: Target) -> None:
    """Mix-and-match: the feature's former list of targets under the name of the present one."""
    former = target.file("metadata/feature-summarization.json").read_bytes()
    new_version(target)
    target.file("metadata/feature-summarization.json").write_bytes(former)
    target.refused(r"\(mix-and-match\)")


def test_a_former_snapshot_under_the_present_name(target: Target) -> None:
    former = target.file("metadata/snapshot.json").read_bytes()
    new_version(target)
    target.file("metadata/snapshot.json").write_bytes(former)
    target.refused(r"\(mix-and-match\)|endless data")


def test_metadata_without_signatures(target: Target) -> None:
    content = json.loads(target.timestamp.read_bytes())
    content["signed"]["version"] += 1
    content["signatures"] = []
    target.timestamp.write_text(json.dumps(content))
    target.refused("not signed by the keys that this device trusts: timestamp was signed by 0/1 keys")


def test_metadata_signed_by_a_role_that_may_not(target: Target) -> None:
    """A feature's key signs a timestamp."""
    metadata = Metadata.from_bytes(target.timestamp.read_bytes())
    metadata.signed.version += 1
    metadata.signatures.clear()
    metadata.sign(Keys(target.folder / "keys").make("feature-summarization"))
    target.timestamp.write_bytes(metadata.to_bytes())
    target.refused("not signed by the keys that this device trusts")


def test_a_signature_repeated_to_reach_a_threshold(target: Target) -> None:
    """Under-signed: two keys must sign the timestamp, one did."""
    repository = target.channel.repository
    root = Metadata[Root].from_bytes(repository.keys.read_root(1)).signed
    root.version = 2
    root.add_key(Keys(target.folder / "more").make("timestamp").public_key, "timestamp")
    root.roles["timestamp"].threshold = 2
    repository.publish_root(root)
    target.refused("timestamp was signed by 1/2 keys")


def test_a_channel_of_somebody_else(target: Target, tmp_path: Path) -> None:
    """Everything is well signed, by keys that the device does not trust."""
    other = Workshop(tmp_path / "other")
    release = other.release()
    other.promote(release)
    shutil.rmtree(target.folder / "channel")
    shutil.copytree(other.folder / "channel", target.folder / "channel")
    target.refused("not signed by the keys that this device trusts")


def test_a_new_root_of_somebody_else(target: Target) -> None:
    root = Metadata[Root].from_bytes((target.folder / "channel/metadata/1.root.json").read_bytes())
    thief = Keys(target.folder / "thief").make("root")
    root.signed.version = 2
    root.signed.roles["root"].keyids = []
    root.signed.add_key(thief.public_key, "root")
    root.sign(thief)
    (target.folder / "channel/metadata/2.root.json").write_bytes(root.to_bytes())
    target.refused("root was signed by 0/1 keys")


def test_a_changed_first_root(target: Target) -> None:
    content = json.loads(target.root.read_bytes())
    content["signed"]["expires"] = "2099-01-01T00:00:00Z"
    (target.folder / "root.json").write_text(json.dumps(content))
    with pytest.raises(Refused, match="root was signed by 0/1 keys"):
        Device(target.location, target.folder / "new", target.folder / "root.json").pull(SUMMARIES, target.one[0])


def test_something_else_than_metadata(target: Target) -> None:
    target.timestamp.write_text("<html>Sign in to the hotel's network</html>")
    target.refused("no sound metadata")


def test_metadata_of_another_kind(target: Target) -> None:
    target.timestamp.write_bytes(target.file("metadata/snapshot.json").read_bytes())
    target.refused("no sound metadata: Expected 'timestamp', got 'snapshot'")


def test_the_files_of_two_features_swapped(target: Target) -> None:
    path = new_version(target)
    path.write_bytes(target.weights(WRITING).read_bytes())
    target.refused("not the bytes that were signed")


@pytest.mark.parametrize("name", ["timestamp.json", WEIGHTS])
def test_data_without_end(target: Target, name: str) -> None:
    new_version(target)
    with Endless(target.folder / "channel", name) as address:
        with pytest.raises(Refused, match=r"\(endless data\)"):
            target.device(channel=address).pull(SUMMARIES)
        assert target.files_of_device() == target.installed


class Endless:
    """The channel over HTTP, where one file never ends."""

    def __init__(self, folder: Path, name: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = folder / self.path.lstrip("/")
                self.send_response(200 if path.is_file() else 404)
                self.end_headers()
                if not path.is_file():
                    return
                try:
                    while self.path.endswith(name):
                        self.wfile.write(b" " * 65536)
                except OSError:
                    return
                self.wfile.write(path.read_bytes())

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


# With stolen online keys: those of one feature, of the snapshot and of the timestamp


def test_a_feature_that_signs_for_another(target: Target) -> None:
    """Its signature counts for its own paths only: the other feature's device sees what it saw before."""
    path = pointer_path(WRITING, target.one[0])
    target.sign("feature-summarization", {path: target.pointer(WRITING, version=9)})
    assert target.device().pull(WRITING).version == 1
    shutil.rmtree(target.folder / "device" / WRITING)
    titles = target.pointer(WRITING).replace(b"writing", b"titles")
    target.sign("feature-summarization", {pointer_path("titles", target.one[0]): titles})
    target.refused("nothing of titles", "titles", FactoryError)


def test_a_pointer_of_another_feature(target: Target) -> None:
    path = pointer_path(SUMMARIES, target.one[0])
    target.sign("feature-summarization", {path: target.pointer(WRITING)})
    target.refused("speaks of writing")


def test_a_pointer_for_another_base_release(target: Target) -> None:
    path = pointer_path(SUMMARIES, target.one[0])
    target.sign("feature-summarization", {path: target.pointer(SUMMARIES, base_release=digest("other"))})
    target.refused("which is not what was asked for")


def test_a_package_for_another_base_release(target: Target) -> None:
    """A well-made adapter, at the right place, that was trained over another base release."""
    other = target.release("two")
    package, content = target.package(other, SUMMARIES, 2)
    _offer(target, package, 2, content)
    target.refused("made for base release .*, another than this device's")


def test_a_package_of_another_feature(target: Target) -> None:
    package, content = target.package(target.one, WRITING, 2)
    _offer(target, package, 2, content)
    target.refused("the package is writing 2, not what the pointer names")


def test_a_package_that_the_pointer_does_not_name(target: Target) -> None:
    package, _ = target.package(target.one, SUMMARIES, 2)
    _offer(target, package, 2, digest("another"))
    target.refused("not what the pointer names")


def _offer(target: Target, package: Path, version: int, content: str) -> None:
    stamped = target.folder / "stamped"
    stamped.mkdir()
    stamp_version(package, stamped, version)
    folder = package_path(SUMMARIES, target.one[0], version)
    files = {f"{folder}/{path.name}": path.read_bytes() for path in stamped.iterdir()}
    pointer = target.pointer(SUMMARIES, version=version, package=content)
    target.sign("feature-summarization", files | {pointer_path(SUMMARIES, target.one[0]): pointer})


def test_a_target_that_is_not_signed_for_any_more(target: Target) -> None:
    """The pointer is there, the package was withdrawn from the list."""
    repository = target.channel.repository
    role = repository.role(repository.published(), "feature-summarization")
    assert role is not None
    kept = {path: info for path, info in role.signed.targets.items() if path.endswith(POINTER)}
    repository.commit(lambda draft, _: draft.targets.update({"feature-summarization": kept}))
    target.refused("is not signed for")


def test_a_signed_pointer_that_is_none(target: Target) -> None:
    target.sign("feature-summarization", {pointer_path(SUMMARIES, target.one[0]): b'{"version": "latest"}'})
    target.refused("is no pointer")


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../../escaped"])
def test_a_path_that_escapes(target: Target, name: str) -> None:
    """The stolen key is that of the base release, whose package has folders."""
    path = f"base/{target.one[0][:16]}/{MANIFEST}"
    manifest = json.loads(target.file(f"{TARGETS}/{path}").read_bytes())
    manifest["files"][name] = PackagedFile(sha256=digest("outside"), bytes=7).model_dump()
    target.sign("feature-base", {path: json.dumps(manifest).encode()})
    with pytest.raises(FactoryError, match="no path inside a package"):
        target.device().pull_base()
    assert not list(target.folder.rglob("escaped"))


def test_a_key_that_was_revoked(target: Target) -> None:
    """The feature's key was stolen, and rotated; the thief has the snapshot's and the timestamp's keys too."""
    keys = target.folder / "keys"
    stolen = (keys / "feature-summarization.pem").read_bytes()
    upkeep.rotate(target.channel.repository, "feature-summarization")
    target.device().pull(SUMMARIES)
    state = target.channel.repository.published()
    role = target.channel.repository.role(state, "feature-summarization")
    assert role is not None
    forged = Targets(role.signed.version + 1, expires=role.signed.expires, targets={})
    (keys / "feature-summarization.pem").write_bytes(stolen)
    thief = target.channel.repository
    metadata = Metadata(forged)
    metadata.sign(Keys(keys).make("feature-summarization"))
    (target.folder / f"channel/metadata/{forged.version}.feature-summarization.json").write_bytes(metadata.to_bytes())
    state.snapshot.signed.meta["feature-summarization.json"] = meta_of(forged, metadata.to_bytes())
    thief._last = state
    thief.commit(lambda draft, _: draft.renew.add("timestamp"))
    target.refused("feature-summarization was signed by 0/1 keys")
