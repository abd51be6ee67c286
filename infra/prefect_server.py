"""Prefect's settings for this process: an ephemeral server in the workspace unless settings name one, or one is up."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import Unavailable

_INIT = 1
# How Prefect's RuntimeErrors about its server begin: one that is set, and one of this process's own.
_UNREACHABLE = ("Failed to reach API", "Timed out while attempting to connect to ephemeral")


def server_url() -> str:
    """The API of the Prefect server that is set, "" if none is: then a run starts one of its own."""
    return os.environ.get("PREFECT_API_URL", "")


def configure_prefect(home: Path) -> None:
    """Set what Prefect reads from the environment; call it before Prefect is imported, as the one run of a workspace.

    The ephemeral server's own services log harmless tracebacks when they are stopped in the middle of a flush, which is
    what the end of a command looks like to them, so only what is critical is shown.
    """
    quiet = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    end_orphaned_servers(Path(os.environ["PREFECT_HOME"]))


@contextmanager
def prefect_errors() -> Iterator[None]:
    """What Prefect raises in the block where its server is away, as Unavailable; it has tried for a minute by then."""
    import httpx

    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith(_UNREACHABLE):
            raise
        where = server_url() or "this run's own"
        raise Unavailable(
            f"Prefect's server ({where}): {error}; see that it is there, and run again: finished parts are kept"
        ) from None


def end_orphaned_servers(home: Path) -> None:
    """End ephemeral servers of this home whose command was killed: nobody else would ever stop them."""
    import psutil

    for process in psutil.process_iter():
        try:
            if (
                process.ppid() == _INIT
                and any("prefect.server.api.server" in part for part in process.cmdline())
                and process.environ().get("PREFECT_HOME") == str(home)
            ):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
