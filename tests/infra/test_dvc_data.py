"""Versions of the features' data, with the real DVC and git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.data.overlay import read_overlay
from adapters.records import Record
from infra.dvc_data import DataRepo
from infra.errors import FactoryError

pytestmark = pytest.mark.servers


@pytest.fixture
def data(tmp_path: Path) -> DataRepo:
    return DataRepo(tmp_path / "home" / "data")


def record(name: str, text: str = "a text") -> Record:
    return Record(id=name, use_case="email", input=text, source="s", license="l")


def test_a_version_is_made_once_and_can_be_had_back(data: DataRepo, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("b")
    first = data.snapshot("mail", {"corpus/a.jsonl": b"a", "b.jsonl": tmp_path / "b.jsonl"}, "first")
    assert data.snapshot("mail", {"corpus/a.jsonl": b"a"}, "nothing new") == first
    second = data.snapshot("mail", {"b.jsonl": b"bb"}, "second")
    assert [version.message for version in data.versions("mail")] == ["first", "second"]
    assert data.versions("mail") == [first, second]
    assert first.md5 != second.md5
    path = data.read("mail", "b.jsonl")
    assert path is not None
    assert path.read_bytes() == b"bb"
    assert (data.folder / "mail" / "corpus" / "a.jsonl").read_bytes() == b"a"
    assert data.snapshot("mail", {"b.jsonl": b"b"}, "back").md5 == first.md5

    clone = tmp_path / "elsewhere" / "data"
    subprocess.run(["git", "clone", "--quiet", str(data.folder), str(clone)], check=True)
    shutil.copytree(data.remote, clone.with_name("data-remote"))
    from dvc.repo import Repo

    with Repo(str(clone)) as repo:
        repo.pull()
    assert (clone / "mail" / "b.jsonl").read_bytes() == b"b", "all that is needed is in git and the remote"


def test_features_have_versions_of_their_own(data: DataRepo) -> None:
    data.snapshot("mail", {"a": b"1"}, "mail 1")
    data.snapshot("chat", {"a": b"1"}, "chat 1")
    data.snapshot("mail", {"a": b"2"}, "mail 2")
    assert [version.message for version in data.versions("mail")] == ["mail 1", "mail 2"]
    assert [version.message for version in data.versions("chat")] == ["chat 1"]
    assert data.versions("notes") == []


def test_status(data: DataRepo) -> None:
    assert data.status() == {}
    data.snapshot("mail", {"a": b"1"}, "one")
    data.snapshot("chat", {"a": b"2"}, "two")
    (data.folder / "mail" / "a").write_bytes(b"by hand")
    assert data.status() == {"chat": "versioned", "mail": "changed"}
    data.snapshot("mail", {"a": b"1"}, "as it was")
    shutil.rmtree(data.remote)
    assert data.status() == {"chat": "not pushed", "mail": "not pushed"}
    data.snapshot("chat", {}, "push again")
    assert data.status() == {"chat": "versioned", "mail": "not pushed"}


def test_overlay(data: DataRepo) -> None:
    assert data.versions("mail") == []
    data.add_records("mail", [record("a"), record("b")])
    version = data.add_records("mail", [record("b", "another text")])
    assert data.add_records("mail", [record("b", "another text")]) == version
    data.remove_records("mail", ["a", "from-the-corpus"])
    overlay = read_overlay(data.folder / "mail")
    assert [(one.id, one.input) for one in overlay.added] == [("b", "another text")]
    assert overlay.removed == {"a", "from-the-corpus"}
    data.add_records("mail", [record("a")])
    overlay = read_overlay(data.folder / "mail")
    assert {one.id for one in overlay.added} == {"a", "b"}
    assert overlay.removed == {"from-the-corpus"}, "what is added again is removed no more"
    assert len(data.versions("mail")) == 4


def test_a_damaged_overlay_is_not_overwritten(data: DataRepo) -> None:
    data.snapshot("mail", {"added.jsonl": b"not json\n"}, "by hand")
    with pytest.raises(FactoryError, match=r"added\.jsonl: a row is no record"):
        data.add_records("mail", [record("a")])


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", ".hidden", "a//b", "", "a b", "a\n"])
def test_names_cannot_escape(data: DataRepo, name: str) -> None:
    with pytest.raises(FactoryError, match="is no name for a data file"):
        data.snapshot("mail", {name: b""}, "x")
    with pytest.raises(FactoryError, match="is no feature's name"):
        data.read(name or "..", "a")


def test_a_killed_run_is_completed_by_the_next(data: DataRepo) -> None:
    data.snapshot("mail", {"a": b"1"}, "one")
    # Killed after the files were written and before `dvc add`, while git held its index.
    (data.folder / "mail" / "a").write_bytes(b"2")
    (data.folder / ".git" / "index.lock").touch()
    version = data.snapshot("mail", {"a": b"2"}, "two")
    assert data.versions("mail")[-1] == version
    assert version.message == "two"
    # Killed while the repository was made.
    half = DataRepo(data.folder.with_name("half"))
    half.folder.mkdir()
    subprocess.run(["git", "init", "--quiet", str(half.folder)], check=True)
    (half.folder / ".dvc").mkdir()
    assert half.snapshot("mail", {"a": b"1"}, "one") == half.versions("mail")[0]


def test_a_surrounding_git_is_left_alone(data: DataRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "--quiet", str(outer)], check=True)
    monkeypatch.setenv("GIT_DIR", str(outer / ".git"))  # as inside a hook
    monkeypatch.setenv("GIT_INDEX_FILE", str(outer / ".git" / "index"))
    inside = DataRepo(outer / ".factory" / "data")
    inside.snapshot("mail", {"a": b"1"}, "one")
    assert [version.message for version in inside.versions("mail")] == ["one"]
    assert not (outer / ".git" / "index").exists()
    assert os.environ["GIT_DIR"] == str(outer / ".git")


def test_dvc_is_quiet(data: DataRepo, capfd: pytest.CaptureFixture[str]) -> None:
    data.snapshot("mail", {"a": b"1"}, "one")
    assert capfd.readouterr() == ("", "")


def test_reading_needs_no_dvc(data: DataRepo) -> None:
    code = (
        "import sys; from pathlib import Path; from infra.dvc_data import DataRepo; "
        "from adapters.data.overlay import read_overlay; "
        f"folder = Path({str(data.folder)!r}); DataRepo(folder).read('mail', 'a'); read_overlay(folder / 'mail'); "
        "assert not {'dvc', 'pandas', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parallel_processes_wait_for_each_other(data: DataRepo) -> None:
    code = (
        "import sys; from pathlib import Path; from adapters.records import Record; "
        "from infra.dvc_data import DataRepo; "
        "name = sys.argv[1]; "
        "row = Record(id=name, use_case='email', input='a text', source='s', license='l'); "
        f"DataRepo(Path({str(data.folder)!r})).add_records('mail', [row])"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, f"r{n}"], stderr=subprocess.PIPE) for n in range(4)]
    errors = [run.communicate()[1].decode() for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, errors
    assert {one.id for one in read_overlay(data.folder / "mail").added} == {"r0", "r1", "r2", "r3"}
    assert len(data.versions("mail")) == 4


def test_the_files_of_every_version_can_be_read(data: DataRepo) -> None:
    first = data.snapshot("mail", {"corpus/a.jsonl": b"a", "b": b"1"}, "first")
    second = data.snapshot("mail", {"b": b"2"}, "second")
    data.snapshot("chat", {"b": b"3"}, "other")
    assert data.files("mail", first) == {"corpus/a.jsonl": b"a", "b": b"1"}
    assert data.files("mail", second) == {"corpus/a.jsonl": b"a", "b": b"2"}
    assert data.find(first.md5[:8]) == ("mail", first)
    assert data.find(second.commit) == ("mail", second)
    shutil.rmtree(data.folder / ".dvc" / "cache")
    assert data.files("mail", first)["b"] == b"1", "what the cache lacks comes from the remote"
    for name in ("", "no version"):
        with pytest.raises(FactoryError, match="is unknown; `factory data log` names them"):
            data.find(name)


def test_a_version_that_two_features_have_must_be_told_by_its_commit(data: DataRepo) -> None:
    mail, chat = (data.snapshot(name, {"a": b"1"}, name) for name in ("mail", "chat"))
    assert mail.md5 == chat.md5
    with pytest.raises(FactoryError, match="of several features: chat, mail"):
        data.find(mail.md5)
    assert data.find(mail.commit) == ("mail", mail)
