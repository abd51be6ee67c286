"""The workspace: one writer at a time across processes, and files that are old or new, never in between."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.errors import FactoryError
from infra.workspace import Workspace, write_atomically

HOLDER = """
import sys
from pathlib import Path
from infra.workspace import Workspace

with Workspace(Path(sys.argv[1])).lock(*sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, *part: str) -> subprocess.Popen[str]:
    """A process that holds the workspace, or a part of it, until its input ends."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_second_process_is_told_who_holds_the_workspace(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    with pytest.raises(FactoryError) as caught, Workspace(tmp_path).lock():
        pass
    assert f"in use by process {holder.pid}" in str(caught.value) and str(tmp_path) in str(caught.value)
    holder.communicate("")
    with Workspace(tmp_path).lock():
        assert (tmp_path / "lock.pid").read_text() == str(os.getpid())


def test_killed_holder_frees_the_workspace(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with Workspace(tmp_path).lock():
        pass


def test_parts_are_held_beside_one_another(tmp_path: Path) -> None:
    workspace, holder = Workspace(tmp_path), hold(tmp_path, "feature-one")
    assert workspace.holds("feature-one") and not workspace.holds("feature-two")
    with workspace.lock("feature-two"), workspace.lock("decisions"):
        pass
    for part in ("feature-one", ""):
        with pytest.raises(FactoryError, match=f"in use by process {holder.pid}"), workspace.lock(part):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert not workspace.holds("feature-one")
    with workspace.lock("feature-one"):
        pass
    with workspace.lock():
        pass


def test_nobody_holds_a_part_of_what_is_held_alone(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    with pytest.raises(FactoryError, match=f"in use by process {holder.pid}"), Workspace(tmp_path).lock("data"):
        pass
    holder.communicate("")


def test_a_part_is_waited_for(tmp_path: Path) -> None:
    holder = hold(tmp_path, "decisions")
    threading.Timer(0.2, holder.send_signal, [signal.SIGKILL]).start()
    with Workspace(tmp_path).lock("decisions", seconds=20):
        assert holder.wait() == -signal.SIGKILL
    holder.communicate()


def test_lock_is_freed_by_an_error(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(RuntimeError), workspace.lock():
        raise RuntimeError
    with Workspace(tmp_path).lock():
        pass


def test_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FactoryError, match="--home"):
        Workspace(tmp_path / "file" / "home")


def test_a_disk_that_is_all_but_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Workspace(tmp_path).require_room()
    monkeypatch.setattr("infra.workspace._LEAST_MB", 1e9)
    with pytest.raises(FactoryError, match="disk is full"):
        Workspace(tmp_path).require_room()


def test_bases_are_kept_by_content_and_remembered(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    fetched: list[Path] = []

    def fetch(folder: Path) -> str:
        fetched.append(folder)
        (folder / "config.json").write_text("{}")
        return "d1"

    workspace.add_base("one://a", fetch)
    workspace.add_base("two://a", fetch)
    workspace.add_base("one://a", fetch)
    known = Workspace(tmp_path).known_bases()
    assert [(base.source, base.digest) for base in known] == [("two://a", "d1"), ("one://a", "d1")]
    assert (workspace.base_folder("d1") / "config.json").is_file()
    assert not any(folder.exists() for folder in fetched)


def test_failed_fetch_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)

    def fails(folder: Path) -> str:
        (folder / "half").write_text("half")
        raise FactoryError("no network")

    with pytest.raises(FactoryError, match="no network"):
        workspace.add_base("hf://org/name", fails)
    assert workspace.known_bases() == [] and not list(tmp_path.rglob("half"))


def test_write_atomically_replaces_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["b.json"]


def test_write_atomically_keeps_the_old_file_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import resource, sys; from pathlib import Path; from infra.workspace import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "write_atomically(Path(sys.argv[1]), b'x' * 100)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.returncode == 1 and "File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
