"""The channel in a real S3 server: published, raced for by real processes, downloaded over HTTP, and its errors."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.canonical import digest_file
from infra.errors import FactoryError
from registry.channel import Publication, open_channel
from registry.channel.s3 import S3Store
from tests.registry.workshop import SUMMARIES, WRITING, Workshop
from tests.servers import PUBLIC_BUCKET, S3Server, s3_server

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def client(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, to which the environment points; its bucket is there."""
    import boto3

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for name, value in (("AWS_SHARED_CREDENTIALS_FILE", os.devnull), ("AWS_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=PUBLIC_BUCKET)
    return client


def test_a_channel_in_a_bucket_serves_devices_over_http(client: Any, server: S3Server, tmp_path: Path) -> None:
    shop = Workshop(tmp_path, f"s3://{PUBLIC_BUCKET}/team/one")
    release = shop.release()
    shop.promote(release)
    device = shop.device(channel=f"{server.endpoint}/{PUBLIC_BUCKET}/team/one")
    assert device.pull_base().base_release == release[0]
    assert device.pull(SUMMARIES).version == 1
    shop.promote(release, version=2)
    assert device.pull(SUMMARIES).version == 2
    assert shop.channel.anchored_heads() == shop.heads()
    with pytest.raises(FactoryError, match="nothing of writing"):
        device.pull(WRITING)
    assert [one.version for one in shop.channel.pointers()] == [1, 2]


def test_a_channel_can_move_to_a_bucket(client: Any, server: S3Server, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    release = shop.release()
    shop.device().pull_base()
    shop.location = f"s3://{PUBLIC_BUCKET}/moved"
    assert shop.channel.anchored_heads() == {}
    shop.channel.publish([], {})
    base = shop.ledger.rows("base")[0]
    shop.channel.publish([Publication(base, base, release[1])], shop.heads())
    assert shop.device(channel=f"{server.endpoint}/{PUBLIC_BUCKET}/moved").pull_base().downloaded == 0


RACER = """
import sys
from pathlib import Path
from tests.registry.workshop import Workshop
shop = Workshop(Path(sys.argv[1]), sys.argv[2])
release = shop.ledger.rows("base")[0].base_release, Path(sys.argv[1]) / "releases/one"
for line in sys.stdin:
    shop.promote(release, sys.argv[3], version=int(line))
    print("done", flush=True)
"""


def test_publishers_in_several_processes_lose_nothing(client: Any, tmp_path: Path) -> None:
    place = f"s3://{PUBLIC_BUCKET}/raced"
    shop = Workshop(tmp_path, place)
    release = shop.release()
    features = [SUMMARIES, WRITING]
    for version in (1, 2):
        for feature in features:
            shop.package(release, feature, version)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), place, feature],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for feature in features
    ]
    for version in ("1\n", "2\n"):
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(version)
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "done\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        assert racer.wait() == 0
    assert {one.feature: one.version for one in shop.channel.pointers()} == {"base": 1} | dict.fromkeys(features, 2)
    assert shop.channel.anchored_heads() == shop.heads()


def test_a_file_moves_only_from_the_state_that_was_read(client: Any) -> None:
    store = S3Store(PUBLIC_BUCKET, "conditions")
    assert store.read("metadata/a.json") is None
    assert store.put("metadata/a.json", b"1", None)
    assert not store.put("metadata/a.json", b"2", None)
    found = store.read("metadata/a.json")
    assert found is not None
    assert store.put("metadata/a.json", b"2", found.tag)
    assert not store.put("metadata/a.json", b"3", found.tag)
    # A try whose answer was lost is repeated by boto3, and finds its own file.
    assert store.put("metadata/a.json", b"2", found.tag)
    assert not store.put("metadata/b.json", b"1", found.tag)


def test_files_are_listed_and_removed(client: Any) -> None:
    store = S3Store(PUBLIC_BUCKET, "listed")
    before = datetime.now(UTC) - timedelta(minutes=1)
    for name in ("metadata/a.json", "targets/b/c"):
        store.put(name, name.encode(), None)
    assert {(one.key, one.bytes) for one in store.files()} == {("metadata/a.json", 15), ("targets/b/c", 11)}
    assert all(one.written > before for one in store.files())
    store.remove("targets/b/c")
    store.remove("targets/b/c")
    assert [one.key for one in store.files()] == ["metadata/a.json"]


def test_a_large_file_goes_up_in_parts_once(client: Any, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(1 << 20) * 17)
    store = S3Store(PUBLIC_BUCKET, "large")
    store.add_file("targets/large", source, digest_file(source))
    head = client.head_object(Bucket=PUBLIC_BUCKET, Key="large/targets/large")
    assert head["ContentLength"] == 17 << 20
    assert head["ETag"].endswith('-3"'), "three parts"
    client.download_file(PUBLIC_BUCKET, "large/targets/large", str(tmp_path / "back"))
    assert digest_file(tmp_path / "back") == digest_file(source)
    store.add_file("targets/large", source, digest_file(source))
    assert client.head_object(Bucket=PUBLIC_BUCKET, Key="large/targets/large")["LastModified"] == head["LastModified"]


def test_a_repair_reads_what_lies_there_and_does_not_believe_its_name_or_metadata(
    client: Any, server: S3Server, tmp_path: Path
) -> None:
    shop = Workshop(tmp_path, f"s3://{PUBLIC_BUCKET}/believed")
    release = shop.release()
    publication = shop.decided(release)
    shop.channel.publish([publication], shop.heads())
    device = shop.device(channel=f"{server.endpoint}/{PUBLIC_BUCKET}/believed")
    device.pull_base()
    listed = client.list_objects_v2(Bucket=PUBLIC_BUCKET, Prefix=f"believed/targets/{SUMMARIES}/")["Contents"]
    (key,) = [entry["Key"] for entry in listed if entry["Key"].endswith("adapter_model.safetensors")]
    head = client.head_object(Bucket=PUBLIC_BUCKET, Key=key)
    zeros = b"\0" * head["ContentLength"]
    client.put_object(Bucket=PUBLIC_BUCKET, Key=key, Body=zeros, Metadata=head["Metadata"])
    with pytest.raises(FactoryError):
        device.pull(SUMMARIES)
    assert shop.channel.publish([publication], shop.heads()) == [], "a publication believes, so that it is quick"
    (target,) = shop.channel.publish([publication], shop.heads(), thorough=True)
    assert target.endswith("adapter_model.safetensors")
    assert device.pull(SUMMARIES).version == 1
    assert shop.channel.publish([publication], shop.heads(), thorough=True) == []


def test_a_bucket_says_no(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(place: str = f"s3://{PUBLIC_BUCKET}/no") -> str:
        with pytest.raises(FactoryError) as no:
            open_channel(place, tmp_path / "keys").start()
        assert "\n" not in str(no.value)
        return str(no.value)

    assert "no such bucket" in reason("s3://not-there/channel")
    for place in ("s3://", "s3://UPPER/x", "s3://bucket/a b", "s3:bucket"):
        assert "write s3://bucket/prefix" in reason(place)
    (tmp_path / "file").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "reader")  # which may not write
        assert "access denied" in reason()
        with pytest.raises(FactoryError, match="access denied"):
            S3Store(PUBLIC_BUCKET, "").add_file("targets/x", tmp_path / "file", digest_file(tmp_path / "file"))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "wrong secret key" in reason()
        patch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        assert "unknown access key" in reason()
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no credentials" in reason()
    with monkeypatch.context() as patch:
        patch.setattr("infra.s3._ATTEMPTS", 1)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert "check the network" in reason()


def test_a_clock_that_is_off_is_named(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth

    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) - timedelta(hours=3))
    with pytest.raises(FactoryError, match="clock is off"):
        open_channel(f"s3://{PUBLIC_BUCKET}/skewed", tmp_path / "keys").start()
