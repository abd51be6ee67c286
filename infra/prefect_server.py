"""Prefect's API for the flows of a command: the server that settings name, or one of the command's own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import UNREACHABLE, Unavailable
from infra.supervision import answers, choose_port

_INIT = 1
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05
# In the environment of a server that a command started, the Prefect home that it serves.
_MARK = "FACTORY_SERVER_OF_COMMAND"
# The server's own services log harmless tracebacks when they are stopped in the middle of a flush, which is what the
# end of a command looks like to them, so only what is critical is shown.
_QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


def server_url() -> str:
    """The API of the Prefect server that is set, "" if none is: then a command starts one of its own."""
    return os.environ.get("PREFECT_API_URL", "")


@contextmanager
def prefect_api(home: Path, prepare: Callable[[], None]) -> Iterator[None]:
    """Flows of the block report to the server that is set, or to one of this process's own, ended with the block.

    Such a server takes seconds to start; `prepare` is called meanwhile. To be entered before Prefect is imported, by
    the one command that holds the workspace; `home` is Prefect's folder there.

    Raises:
        Unavailable: the server does not start, or is away in the block; Prefect has tried for a minute by then.
    """
    for name, value in {"PREFECT_HOME": str(home), **_QUIET}.items():
        os.environ.setdefault(name, value)
    with _server(home) as (url, wait):
        prepare()
        wait()
        import httpx
        from prefect.settings import PREFECT_API_URL, temporary_settings

        try:
            with temporary_settings({PREFECT_API_URL: url}):
                yield
        except (httpx.TransportError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith(UNREACHABLE):
                raise
            raise Unavailable(
                f"Prefect's server ({url}): {error}; see that it is there, and run again: finished parts are kept"
            ) from None


@contextmanager
def _server(home: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The server's API, and what waits until it answers."""
    if server_url():
        yield server_url(), lambda: None
        return
    _end_orphans(home)
    port = str(choose_port(0, set()))
    url, log = f"http://127.0.0.1:{port}/api", home / "server.log"
    command = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui", "--no-services"]
    home.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, _MARK: str(home)},
        )

    def wait() -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"Prefect's own server did not start; {log} says why. Run again")
            time.sleep(_LOOK_SECONDS)

    try:
        yield url, wait
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_orphans(home: Path) -> None:
    """End servers of this home whose command was killed: nobody else would ever stop them."""
    import psutil

    for process in psutil.process_iter():
        try:
            if process.ppid() == _INIT and process.environ().get(_MARK) == str(home):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
