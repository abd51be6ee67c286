"""Local servers as supervised processes: started in order, restarted when they die, watched by their health pages.

supervisord (http://supervisord.org) restarts, ends process groups and turns logs over; this file writes its
configuration and asks it. It listens on a socket in the stack's folder, which only this user may open.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from infra.canonical import canonical_json
from infra.errors import FactoryError
from infra.workspace import write_atomically

if TYPE_CHECKING:
    import psutil

_START_SECONDS = 300.0
_STOP_SECONDS = 15  # then by force: whatever runs here goes on after a kill where it was
_ANSWER_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_LONGEST_SOCKET = 100  # Linux takes 107 bytes
# Marks every process of a stack, so that those that outlive their supervisor are found.
_MARK = "FACTORY_STACK"
_CONFIG = """\
[supervisord]
nodaemon = true
silent = true
logfile = {logs}/supervisord.log
pidfile = {folder}/supervisord.pid

[unix_http_server]
file = {socket}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
_PROGRAM = """
[program:{name}]
command = {command}
autostart = false
autorestart = true
startsecs = 1
startretries = 30
stopasgroup = true
killasgroup = true
stopwaitsecs = {stop}
redirect_stderr = true
stdout_logfile = {logs}/{name}.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


@dataclass(frozen=True)
class Service:
    """One process: its command, and the page that answers 200 when it is ready (None: it is enough that it runs)."""

    name: str
    command: tuple[str, ...]
    health: str | None = None


@dataclass(frozen=True)
class Status:
    """How one service is: supervisord's state (`RUNNING`, `BACKOFF`, `FATAL` …), whether it answers, process and log.

    `seconds` is how long the process has been running.
    """

    name: str
    state: str
    healthy: bool
    pid: int | None
    seconds: float
    health: str | None
    log: str

    def to_json(self) -> dict[str, Any]:
        """The documented JSON form of `factory status --json`."""
        return asdict(self)


class Supervisor:
    """The supervised processes of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.logs = self.folder / "logs"
        self._socket = self.folder / "supervisor.sock"
        self._state = self.folder / "stack.json"

    def start(self, groups: Sequence[Sequence[Service]], environment: Mapping[str, str]) -> list[Status]:
        """Start groups of services, each when the one before is healthy; the processes see `environment` and ours.

        Raises:
            FactoryError: a service did not become healthy (everything is stopped again), or they run already.
        """
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET:
            raise FactoryError(f"{self._socket}: too long for a socket's name; name a shorter folder with --home")
        self.logs.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            if self.is_running():
                raise FactoryError(f"{self.folder}: is up already; `factory status` shows it, `factory down` ends it")
            self._end_leftovers()
            process = self._launch([service for group in groups for service in group], environment)
            try:
                for group in groups:
                    self._bring_up(group, process)
            except BaseException:
                self._stop()
                raise
        return self.statuses()

    def stop(self) -> bool:
        """End all processes, those too that outlived their supervisor; says whether there were any."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            return self._stop()

    def is_running(self) -> bool:
        """Whether the supervisor of this folder is alive."""
        return self._process() is not None

    def statuses(self) -> list[Status]:
        """How each service is now; none if nothing is up.

        Raises:
            FactoryError: the supervisor is alive and does not answer.
        """
        if not self.is_running():
            return []
        services = [Service(**one) for one in self._read()["services"]]
        try:
            found = {one["name"]: one for one in self._ask().getAllProcessInfo()}
        except OSError as error:
            raise FactoryError(f"{self._socket}: {error}; `factory down` ends what is left") from None
        return [self._status(service, found[service.name]) for service in services]

    def serving(self) -> dict[str, str]:
        """By service, the address of its health page; nothing if the supervisor is not alive."""
        if not self.is_running():
            return {}
        return {one["name"]: one["health"] for one in self._read()["services"] if one["health"]}

    def ports(self) -> dict[str, int]:
        """The ports that services had when they were last started, so that addresses stay what they were."""
        from urllib.parse import urlsplit

        known = self._read().get("services", [])
        return {one["name"]: port for one in known if one["health"] and (port := urlsplit(one["health"]).port)}

    def leftovers(self) -> "list[psutil.Process]":
        """Processes of this stack that nobody supervises any more."""
        import psutil

        if self.is_running():
            return []
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _launch(self, services: Sequence[Service], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        text = _CONFIG.format(folder=_escaped(self.folder), logs=_escaped(self.logs), socket=_escaped(self._socket))
        for service in services:
            command = _escaped(shlex.join(service.command))
            text += _PROGRAM.format(name=service.name, command=command, logs=_escaped(self.logs), stop=_STOP_SECONDS)
        config = self.folder / "supervisord.conf"
        write_atomically(config, text.encode())
        self._socket.unlink(missing_ok=True)
        with (self.logs / "supervisord.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment, _MARK: str(self.folder)},
                start_new_session=True,
            )
        import psutil

        born = psutil.Process(process.pid).create_time()
        known = [asdict(service) for service in services]
        write_atomically(self._state, canonical_json({"pid": process.pid, "born": born, "services": known}))
        return process

    def _bring_up(self, group: Sequence[Service], process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        for service in group:
            try:
                self._ask().startProcess(service.name, False)
            except OSError as error:
                raise FactoryError(f"supervisord did not start: {error}; see {self.logs}/supervisord.log") from None
        names = {service.name for service in group}
        while True:
            unwell = [one for one in self.statuses() if one.name in names and not one.healthy]
            if not unwell:
                return
            if time.monotonic() > deadline or any(one.state == "FATAL" for one in unwell):
                raise FactoryError("\n".join(["the stack did not start:", *(_last_words(one) for one in unwell)]))
            time.sleep(_LOOK_SECONDS)

    def _status(self, service: Service, found: Mapping[str, Any]) -> Status:
        running = found["statename"] == "RUNNING"
        return Status(
            service.name,
            found["statename"],
            running and (service.health is None or answers(service.health)),
            found["pid"] or None,
            float(max(found["now"] - found["start"], 0)) if running else 0.0,
            service.health,
            str(self.logs / f"{service.name}.log"),
        )

    def _stop(self) -> bool:
        import psutil

        process = self._process()
        if process is not None:
            process.terminate()  # supervisord ends its groups first, by force if they do not follow
            try:
                process.wait(_STOP_SECONDS * 2)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()
        return self._end_leftovers() or process is not None

    def _end_leftovers(self) -> bool:
        import psutil

        left = self.leftovers()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        stubborn = psutil.wait_procs(left, timeout=_STOP_SECONDS)[1]
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_STOP_SECONDS)
        return bool(left)

    def _process(self) -> "psutil.Process | None":
        """The supervisor, if it is alive and is the one that was started here."""
        state = self._read()
        if not state:
            return None
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(state["pid"])
            if process.create_time() == state["born"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._state.read_text("utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    def _ask(self) -> Any:
        from xmlrpc.client import ServerProxy

        from supervisor.xmlrpc import SupervisorTransport

        return ServerProxy(
            "http://localhost", transport=SupervisorTransport(None, None, f"unix://{self._socket}")
        ).supervisor


def answers(url: str) -> bool:
    """Whether a page answers 200 within some seconds."""
    import httpx

    try:
        return httpx.get(url, timeout=_ANSWER_SECONDS, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def choose_port(wanted: int, taken: set[int]) -> int:
    """A port on loopback: the wanted one if it is free, else any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do after a restart
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        if found not in taken:
            return found
    return choose_port(0, taken)


def _escaped(value: object) -> str:
    """A value as supervisord's configuration has it, where % begins a name and ; a comment."""
    return str(value).replace("%", "%%")


def _last_words(status: Status) -> str:
    log = Path(status.log)
    lines = log.read_text("utf-8", "replace").strip().splitlines()[-3:] if log.is_file() else []
    return f"  {status.name} is {status.state}; {status.log} ends: " + " | ".join(lines)
