"""Data is shared between workspaces through a folder and through a real S3 server; what is made apart is not merged."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.data.overlay import read_overlay
from adapters.records import Record
from infra.data_remote import DataRemote
from infra.dvc_data import DataRepo
from infra.errors import FactoryError
from tests.servers import s3_server

pytestmark = pytest.mark.servers


def record(name: str) -> Record:
    return Record(id=name, use_case="email", input="a text", source="s", license="l")


def workspace(tmp_path: Path, name: str) -> DataRepo:
    return DataRepo(tmp_path / name / "data")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import boto3

    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="shared-data")
        yield "s3://shared-data/team"


def share(tmp_path: Path, url: str) -> None:
    ours, theirs = workspace(tmp_path, "ours"), workspace(tmp_path, "theirs")
    with pytest.raises(FactoryError, match="holds no data yet"):
        DataRemote(theirs, url).pull()
    first = ours.add_records("mail", [record("a")])
    ours.add_records("mail", [record("b")])
    ours.add_records("chat", [record("c")])
    assert DataRemote(ours, url).push() == 3
    assert DataRemote(ours, url).push() == 3, "nothing new"

    assert DataRemote(theirs, url).pull() == 3
    assert theirs.versions("mail") == ours.versions("mail")
    assert [one.id for one in read_overlay(theirs.folder / "mail").added] == ["a", "b"]
    assert b'"id":"a"' in theirs.files("mail", first)["added.jsonl"], "earlier versions came too"

    theirs.add_records("mail", [record("d")])
    assert DataRemote(theirs, url).push() == 4
    ours.add_records("mail", [record("e")])
    for act in (DataRemote(ours, url).push, DataRemote(ours, url).pull):
        with pytest.raises(FactoryError, match="was changed apart"):
            act()
    assert [one.id for one in read_overlay(ours.folder / "mail").added] == ["a", "b", "e"], "nothing was lost here"
    assert DataRemote(workspace(tmp_path, "third"), url).pull() == 4


def test_a_folder(tmp_path: Path) -> None:
    share(tmp_path, str(tmp_path / "shared"))


@pytest.mark.slow
def test_s3(tmp_path: Path, bucket: str) -> None:
    share(tmp_path, bucket)


def test_of_two_pushes_one_wins(tmp_path: Path) -> None:
    url = str(tmp_path / "shared")
    ours = workspace(tmp_path, "ours")
    ours.add_records("mail", [record("a")])
    remote = DataRemote(ours, url)
    place = remote._place
    _, mark = place.read()
    assert place.write(b"somebody else's", mark)
    assert not place.write(b"ours", mark)


def test_of_two_pushes_to_s3_one_wins(bucket: str) -> None:
    place = DataRemote(DataRepo(Path("unused")), f"{bucket}/race")._place
    content, mark = place.read()
    assert content is None
    assert place.write(b"first", mark)
    assert not place.write(b"second", mark)
    content, mark = place.read()
    assert content == b"first"
    assert place.write(b"third", mark)


@pytest.mark.parametrize("url", ["", "http://example.org/x", "s3://", "ftp://a/b"])
def test_other_places_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(FactoryError, match="name a folder or s3://"):
        DataRemote(workspace(tmp_path, "ours"), url)


def test_a_server_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    with pytest.raises(FactoryError, match="check the address"):
        DataRemote(workspace(tmp_path, "ours"), "s3://bucket/x").pull()
