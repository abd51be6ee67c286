"""Supervised processes, with real ones: they come up in order, come back when killed, and leave nothing behind."""

import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from infra.errors import FactoryError
from infra.supervision import Service, Status, Supervisor, answers, choose_port

SERVER = "import http.server, sys; http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), \
http.server.SimpleHTTPRequestHandler).serve_forever()"
FIRST_PORT = 4900


def server(name: str) -> Service:
    """A service that lists a folder over HTTP."""
    port = choose_port(FIRST_PORT, set())
    return Service(name, (sys.executable, "-c", SERVER, str(port)), f"http://127.0.0.1:{port}/")


def waiting(name: str) -> Service:
    """A service without a health page, with a percent sign in its command, that ends only by force."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); '%s'; signal.pause()"
    return Service(name, (sys.executable, "-c", code))


def by_name(supervisor: Supervisor) -> dict[str, Status]:
    return {one.name: one for one in supervisor.statuses()}


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or waits for its parent to notice."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Supervisor":
    monkeypatch.setattr("infra.supervision._STOP_SECONDS", 1)
    return Supervisor(tmp_path / "stack")


def test_services_come_up_come_back_and_end(supervisor: Supervisor) -> None:
    one = server("one")
    try:
        found = supervisor.start([[one], [waiting("two")]], {"SEEN": "yes"})
        assert [(status.name, status.healthy) for status in found] == [("one", True), ("two", True)]
        assert supervisor.serving() == {"one": one.health}
        processes = {name: psutil.Process(status.pid) for name, status in by_name(supervisor).items()}
        assert processes["two"].environ()["SEEN"] == "yes"
        with pytest.raises(FactoryError, match="is up already"):
            supervisor.start([[server("one")]], {})
        processes["one"].kill()
        processes["one"].wait(30)
        assert _until_healthy(supervisor, "one").pid != processes["one"].pid
    finally:
        assert supervisor.stop()
    assert has_ended(processes["two"]) and not answers(one.health or "")
    assert supervisor.statuses() == [] and supervisor.serving() == {} and not supervisor.stop()
    assert list(supervisor.ports()) == ["one"]


def _until_healthy(supervisor: Supervisor, name: str) -> Status:
    while not (status := by_name(supervisor)[name]).healthy:
        assert status.state in ("RUNNING", "STARTING", "BACKOFF", "EXITED")
    return status


def test_what_outlives_its_supervisor_is_found_and_ended(supervisor: Supervisor) -> None:
    supervisor.start([[waiting("one")]], {})
    orphan = psutil.Process(by_name(supervisor)["one"].pid)
    head = orphan.parent()
    assert head is not None
    head.send_signal(signal.SIGKILL)
    head.wait(30)
    assert supervisor.statuses() == [] and supervisor.leftovers() == [orphan]
    assert supervisor.stop()
    assert has_ended(orphan) and supervisor.leftovers() == []


def test_a_service_that_does_not_start_takes_nothing_with_it(supervisor: Supervisor) -> None:
    bad = Service("bad", (sys.executable, "-c", "raise SystemExit('no such database')"), "http://127.0.0.1:9/")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FactoryError, match="no such database"):
        patch.setattr("infra.supervision._START_SECONDS", 4.0)
        supervisor.start([[waiting("good"), bad]], {})
    assert not supervisor.is_running() and supervisor.leftovers() == []


def test_the_socket_is_for_its_owner_alone(supervisor: Supervisor) -> None:
    supervisor.start([[waiting("one")]], {})
    try:
        assert (supervisor.folder / "supervisor.sock").stat().st_mode & 0o077 == 0
    finally:
        supervisor.stop()


def test_a_name_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match="shorter folder"):
        Supervisor(tmp_path / ("long" * 30)).start([[]], {})


def test_a_port_that_is_taken_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert choose_port(port, set()) != port
    assert choose_port(port, set()) == port
    assert choose_port(port, {port}) != port
