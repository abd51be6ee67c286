"""Prefect's settings for this process: its own ephemeral server in the workspace unless `PREFECT_API_URL` names one."""

import os
from pathlib import Path


def configure_prefect(home: Path) -> None:
    """Set what Prefect reads from the environment; call it before Prefect is imported.

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
        "PREFECT_CLI_WRAP_LINES": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
