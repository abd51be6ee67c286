"""The ledger: the append-only table of decisions that owns the truth about what is in production.

Notable choices:
- A row's number is the feature's last one plus one, inside a transaction, under the primary key (feature, number): of
  two processes that append at once one gets the number and the other a `LedgerConflict`.
- Nothing updates or deletes a row, and triggers in the database refuse to. Rows are chained by hash, feature by
  feature, so a row that was changed all the same is found by `verify`.
- SQLite by default, PostgreSQL by URL.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError

from infra.canonical import canonical_json
from infra.errors import CheckFailed, FactoryError
from registry import decisions
from registry.decisions import NO_ROW, Decision, Row
from registry.migrations import migrate

_WAIT_SECONDS = 30.0

_LEDGER = sa.table("ledger", *(sa.column(name) for name in (*Row.model_fields, "lineage_key")))
_JSON_COLUMNS = ("lineage", "overruled")


class LedgerConflict(CheckFailed):
    """Somebody else's decision about the same feature was recorded first."""


class Ledger:
    """Decisions in a database, opened by SQLAlchemy URL (`sqlite:///file`, `postgresql+psycopg://…`).

    Raises:
        FactoryError: the database cannot be reached or the URL is wrong.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise FactoryError(f"ledger_url: {error}; use sqlite:///FILE or postgresql+psycopg://…") from None
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _begin_is_ours)
            sa.event.listen(self._engine, "begin", _begin)
        with self._transaction(writes=True) as connection:
            migrate(connection)

    def append(self, decision: Decision, expected_number: int | None = None) -> Row:
        """Record a decision.

        `expected_number` is that of the feature's last row when the caller made up its mind, 0 if there was none.

        Raises:
            LedgerConflict: another decision about this feature came first.
        """
        try:
            with self._transaction(writes=True) as connection:
                last = self._last(connection, decision.feature)
                if expected_number is not None and (last.number if last else 0) != expected_number:
                    raise _conflict(decision)
                row = Row(
                    **{name: getattr(decision, name) for name in Decision.model_fields},
                    number=last.number + 1 if last else 1,
                    time=datetime.now(UTC).isoformat(timespec="microseconds"),
                    previous=last.hash if last else NO_ROW,
                    hash=NO_ROW,
                )
                row = row.model_copy(update={"hash": row.computed_hash()})
                connection.execute(_LEDGER.insert().values(_columns(row)))
        except IntegrityError:
            raise _conflict(decision) from None
        return row

    def head(self, feature: str) -> Row | None:
        """The feature's last row."""
        with self._transaction() as connection:
            return self._last(connection, feature)

    def rows(self, feature: str | None = None) -> list[Row]:
        """All rows of a feature in order, or of all features, one after the other."""
        query = _LEDGER.select().order_by(_LEDGER.c.feature, _LEDGER.c.number)
        if feature is not None:
            query = query.where(_LEDGER.c.feature == feature)
        with self._transaction() as connection:
            return [_row(found) for found in connection.execute(query).mappings()]

    def production(self, feature: str, base_release: str) -> Row | None:
        """The row that put the present production version for a base release there, or None."""
        return decisions.production(self.rows(feature), base_release)

    def current_release(self) -> Row | None:
        """The row that made the current base release current: its `base_release` is the key, `version` MLflow's."""
        return decisions.last_move(self.rows(decisions.BASE))

    def verify(self) -> list[str]:
        """What is wrong with the rows, a line each; none if every row is as it was written and none is missing between.

        Rows cut off at a feature's end leave a chain that is whole: they show against the channel, whose pointers hold
        the number and hash of the row that they follow.
        """
        problems: list[str] = []
        feature, number, previous = "", 0, NO_ROW
        query = _LEDGER.select().order_by(_LEDGER.c.feature, _LEDGER.c.number)
        with self._transaction() as connection:
            for columns in connection.execute(query).mappings():
                if columns["feature"] != feature:
                    feature, number, previous = columns["feature"], 0, NO_ROW
                number += 1
                place = f"{feature} row {columns['number']}"
                if columns["number"] != number:
                    problems.append(f"{place}: row {number} is missing before it")
                    number = columns["number"]
                if columns["previous"] != previous:
                    problems.append(f"{place}: does not follow the row before it")
                if not _untouched(columns):
                    problems.append(f"{place}: was changed after it was written")
                previous = columns["hash"]
        return problems

    def _last(self, connection: sa.Connection, feature: str) -> Row | None:
        query = _LEDGER.select().where(_LEDGER.c.feature == feature).order_by(_LEDGER.c.number.desc()).limit(1)
        found = connection.execute(query).mappings().first()
        return _row(found) if found else None

    @contextmanager
    def _transaction(self, writes: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(ledger_writes=writes) as connection, connection.begin():
                yield connection
        except OperationalError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            reason = str(error.orig).strip().splitlines()[0]
            raise FactoryError(f"ledger {shown}: {reason}; check that the database is there and free") from None


def _conflict(decision: Decision) -> LedgerConflict:
    return LedgerConflict(
        f"{decision.feature}: another decision was recorded while this one ({decision.action} version "
        f"{decision.version}) was made; look at `factory history {decision.feature}` and decide again"
    )


def _columns(row: Row) -> dict[str, Any]:
    columns = row.model_dump(mode="json") | {"lineage_key": row.lineage_key}
    return columns | {name: canonical_json(columns[name]).decode() for name in _JSON_COLUMNS}


def _row(columns: sa.RowMapping) -> Row:
    values = {name: columns[name] for name in Row.model_fields}
    return Row(**values | {name: json.loads(values[name]) for name in _JSON_COLUMNS})


def _untouched(columns: sa.RowMapping) -> bool:
    try:
        row = _row(columns)
    except ValueError:
        return False
    return row.computed_hash() == columns["hash"] and row.lineage_key == columns["lineage_key"]


def _begin_is_ours(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 would begin transactions at times of its own choosing.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_WAIT_SECONDS * 1000)}")


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock before it reads the last number; readers do not wait for one another.
    writes = connection.get_execution_options().get("ledger_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
