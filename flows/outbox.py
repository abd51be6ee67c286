"""The outbox: what changed in a workspace, kept until Prefect's server has it; and what was seen last.

An event and the mark of what it speaks of are written in one transaction, so a change is told once, however often and
by however many processes it is looked at, and a process that is killed tells nothing twice and loses nothing. Sending
may be tried by anybody at any time.
"""

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.errors import Unavailable, can_pass

_WAIT_SECONDS = 30.0
# Of events that nobody ever fetched, where no server is set, the last ones are kept.
_KEPT = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, id TEXT, name TEXT, subject TEXT, time TEXT, facts TEXT);
CREATE TABLE IF NOT EXISTS marks (key TEXT PRIMARY KEY, mark TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, time REAL NOT NULL);
"""


@dataclass(frozen=True)
class Event:
    """Something that changed: `subject` is a feature, `base`, or a source; `facts` are plain JSON values."""

    name: str
    subject: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Waiting:
    """An event that was not sent yet, with the id that it always has, and when it happened (UTC, ISO 8601)."""

    number: int
    id: str
    event: Event
    time: str


# Given a key, its former mark (None if it was never seen) and its new one: what to tell.
Tell = Callable[[str, str | None, str], Sequence[Event]]


class Outbox:
    """Events and marks in an SQLite file, which is made on first use.

    Every method raises Unavailable where others write for too long, the disk is full, or the file is damaged: none of
    it is the fault of what is built.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def observe(self, marks: Mapping[str, str], tell: Tell) -> list[Event]:
        """Keep the marks, and what `tell` says about each that is new or differs; returns what was told.

        A mark that is a number only grows: who read it long ago changes nothing.
        """
        told: list[Event] = []
        with self._transaction() as connection:
            for key, mark in marks.items():
                former = _mark(connection, key)
                if former != mark and not _is_older(mark, former):
                    told += tell(key, former, mark)
                    connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (key, mark))
            _add(connection, told)
        return told

    def mark(self, key: str) -> str | None:
        """The mark of a key, None if it was never seen."""
        with self._opened() as connection:
            return _mark(connection, key)

    def forget(self, key: str, mark: str) -> None:
        """Remove the mark of a key if it is still this one."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM marks WHERE key = ? AND mark = ?", (key, mark))

    def waiting(self, count: int = 100) -> list[Waiting]:
        """The events that were not sent yet, oldest first."""
        with self._opened() as connection:
            rows = connection.execute("SELECT * FROM events ORDER BY number LIMIT ?", (count,)).fetchall()
        return [Waiting(row[0], row[1], Event(row[2], row[3], json.loads(row[5])), row[4]) for row in rows]

    def sent(self, numbers: Sequence[int]) -> None:
        """Forget events that have arrived."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM events WHERE number = ?", [(number,) for number in numbers])

    def is_new_request(self, request: str, now: float, lasts: float) -> bool:
        """Whether a request's id was not seen in the last `lasts` seconds; it is remembered."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM requests WHERE time < ?", (now - lasts,))
            done = connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?)", (request, now))
            return done.rowcount == 1

    def forget_request(self, request: str) -> None:
        """A request that was remembered may come again."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM requests WHERE id = ?", (request,))

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection that reads beside whoever writes."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
                connection.executescript(_TABLES)
                yield connection
        except sqlite3.Error as error:
            later = "try again when what holds or fills it is gone"
            remedy = later if can_pass(error) else "move it away: a new one is made, and what waits in it is not sent"
            raise Unavailable(f"{self._path}: {error}; {remedy}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite itself ends one that a full disk breaks off
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _mark(connection: sqlite3.Connection, key: str) -> str | None:
    found = connection.execute("SELECT mark FROM marks WHERE key = ?", (key,)).fetchone()
    return str(found[0]) if found else None


def _is_older(mark: str, former: str | None) -> bool:
    return former is not None and mark.isdecimal() and former.isdecimal() and int(mark) < int(former)


def _add(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    rows = [(str(uuid.uuid4()), event.name, event.subject, now, json.dumps(dict(event.facts))) for event in events]
    connection.executemany("INSERT INTO events (id, name, subject, time, facts) VALUES (?, ?, ?, ?, ?)", rows)
    connection.execute("DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (_KEPT,))
