"""Which causes of a failure can pass by themselves, and which stay until somebody changes something."""

import errno
import sqlite3

import httpx
import pytest
import sqlalchemy as sa

from infra.errors import CheckFailed, FactoryError, Unavailable, can_pass

REQUEST = httpx.Request("GET", "http://127.0.0.1/")


def answered(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(status, request=REQUEST))


def caused(error: Exception, cause: Exception | None = None) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("the server is away"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        ConnectionResetError("Connection reset by peer"),
        TimeoutError("it hangs"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("database or disk is full"),
        caused(sa.exc.StatementError("SELECT 1", "", {}, None), sqlite3.OperationalError("database is locked")),
        httpx.ConnectError("Connection refused"),
        httpx.ReadTimeout("timed out"),
        answered(503),
        answered(429),
        RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"),
        caused(RuntimeError("while it was saved"), OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=repr,
)
def test_what_can_pass(error: Exception) -> None:
    assert can_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        FactoryError("a wrong name"),
        CheckFailed("a gate"),
        RuntimeError("a bug"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        PermissionError(errno.EACCES, "Permission denied"),
        sqlite3.OperationalError("no such table: events"),
        sqlite3.DatabaseError("file is not a database"),
        answered(404),
        answered(401),
        # Whoever made one line of it knew better.
        caused(FactoryError("write another address"), httpx.ConnectError("Connection refused")),
    ],
    ids=repr,
)
def test_what_stays(error: Exception) -> None:
    assert not can_pass(error)
