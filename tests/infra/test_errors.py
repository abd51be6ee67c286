"""Which causes of a failure can pass by themselves; and whatever a user is shown holds no password of a URL."""

import errno
import sqlite3

import httpx
import pytest
import sqlalchemy as sa

from infra.errors import CheckFailed, FactoryError, Unavailable, can_pass, masked

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://mlflow:s3cr3t@127.0.0.1:1/api: refused", "http://mlflow:***@127.0.0.1:1/api: refused"),
        ("token http://t0ken@host, then https://a:b@host.", "token http://***@host, then https://a:***@host."),
        ("postgresql+psycopg://ann:p@ss/w?rd@host/db", "postgresql+psycopg://ann:***@host/db"),
        (
            "postgresql://host/db?user=ann&password=pw&sslmode=on",
            "postgresql://host/db?user=ann&password=***&sslmode=on",
        ),
        ("hf://org/name@main, s3://bucket/a@b, ann@host, http://host:80/", None),
    ],
)
def test_passwords_and_tokens_in_urls_are_masked(text: str, shown: str | None) -> None:
    assert masked(text) == (shown or text)


def test_errors_never_hold_it() -> None:
    for kind in (FactoryError, CheckFailed):
        assert str(kind("http://ann:pw@host is away")) == "http://ann:***@host is away"
