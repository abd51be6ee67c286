"""Prefect's server of one command: started only if none is set, and never left without a word (the rest: test_line)."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.errors import Unavailable
from infra.prefect_server import prefect_api


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the module sets for its process, so that it is taken back."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for name in ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "CRITICAL")
    monkeypatch.setenv("PREFECT_LOGGING_TO_API_ENABLED", "false")


def test_a_server_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    done: list[str] = []
    log = tmp_path / "server.log"
    with pytest.raises(Unavailable, match=str(log)), prefect_api(tmp_path, lambda: done.append("prepared")):
        done.append("block")
    assert done == ["prepared"]
    assert "nonsense" in log.read_text()


def test_what_a_killed_command_left_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without parents that serves this home; one that serves another is nobody's business here."""
    start = "import subprocess; print(subprocess.Popen(['cat'], stdout=subprocess.DEVNULL).pid)"
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    reading, writing = os.pipe()
    # The processes live as long as the pipe is open, however slow or suspended the machine is.
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb"):
        left = {}
        for home in (tmp_path, tmp_path / "another"):
            own = {**os.environ, "FACTORY_SERVER_OF_COMMAND": str(home)}
            command = [sys.executable, "-c", start]
            done = subprocess.run(command, env=own, stdin=stdin, stdout=subprocess.PIPE, text=True, check=True)
            left[home] = psutil.Process(int(done.stdout))
        with pytest.raises(Unavailable), prefect_api(tmp_path, lambda: None):
            pass
        assert not left[tmp_path].is_running() or left[tmp_path].status() == psutil.STATUS_ZOMBIE
        assert left[tmp_path / "another"].is_running()


def test_where_a_server_is_set_none_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(subprocess, "Popen", None)
    with prefect_api(tmp_path, lambda: None):
        assert PREFECT_API_URL.value() == "http://127.0.0.1:9/api"
