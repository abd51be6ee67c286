"""Errors that a user sees as one line: what happened, where, and what to do."""

import errno
import os
import re
import shutil
import sqlite3
import sys

# What the system says when a disk, a quota or a file-size limit is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN)
_DATABASE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
_DATABASE_SAYS = ("is locked", "is full")  # where the error was copied, and its code is lost
_HTTP = (408, 429, 500, 502, 503, 504)
# How Prefect's client begins what it says of a server that is away, in a plain RuntimeError.
UNREACHABLE = "Failed to reach API"
# What a URL can hold of a user: a password (up to the last @, for it may hold slashes), a token in the place of a name,
# a password among the options.
_SECRETS = (
    (re.compile(r"(?<=://)([^\s/?#@:]*:)\S*@"), r"\1***@"),
    (re.compile(r"(?<=://)[^\s/?#@:]+@"), "***@"),
    (re.compile(r"(?<=[?&]password=)[^\s&]+"), "***"),
)


def masked(text: str) -> str:
    """A text without the passwords and tokens that URLs in it hold."""
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text


def disk_full(error: OSError) -> str | None:
    """What the system said if there was no room, else None. Copying a folder keeps only the words of its errors."""
    if isinstance(error, shutil.Error):
        return next((os.strerror(number) for number in _DISK_FULL if f"[Errno {number}]" in str(error)), None)
    return os.strerror(error.errno) if error.errno in _DISK_FULL else None


class FactoryError(Exception):
    """A mistake in usage or input. The command line prints the message without a traceback and exits with 2.

    Messages go to terminals, logs and reports, so they are masked whoever writes them.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class Unavailable(FactoryError):
    """Something is not there now and may be later: a server that is away, room on a disk. Trying again may help."""


class CheckFailed(FactoryError):
    """A gate or a check said no. The command line prints the message and exits with 1."""

    exit_code = 1


def can_pass(error: BaseException) -> bool:
    """Whether the same may succeed later though nothing is changed: something is away, held by others, or full.

    Errors of libraries are followed to what caused them; one line of ours has decided already.
    """
    if isinstance(error, FactoryError):
        return isinstance(error, Unavailable)
    if isinstance(error, OSError):
        known = isinstance(error, ConnectionError | TimeoutError) or error.errno in _NETWORK
        passes = known or disk_full(error) is not None
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        passes = (code & 0xFF) in _DATABASE if code is not None else str(error).endswith(_DATABASE_SAYS)
    else:
        passes = _is_of_network(error) or (isinstance(error, RuntimeError) and str(error).startswith(UNREACHABLE))
    return passes or (error.__cause__ is not None and can_pass(error.__cause__))


def _is_of_network(error: BaseException) -> bool:
    """Whether an error of httpx says that a server is away or busy. It is asked only where somebody has imported it."""
    httpx = sys.modules.get("httpx")
    if httpx is None:
        return False
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _HTTP
    return isinstance(error, httpx.TransportError)
