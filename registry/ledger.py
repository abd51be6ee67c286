"""The ledger: the append-only table of decisions that owns the truth about what is in production.

Notable choices:
- A row's number is the feature's last one plus one, inside a transaction that keeps other writers of the feature out,
  under the primary key (feature, number): of two processes that append at once under an expected number one gets it
  and the other a `LedgerConflict`.
- Nothing updates or deletes a row, and triggers in the database refuse to. Rows are chained by hash, feature by
  feature, so a row that was changed all the same is found by `verify`.
- What the plan, the list and the projections need is one query each over an index, however long the history is.
- SQLite by default, PostgreSQL by URL. A server that answered this process before is waited for: it may be restarting.
"""

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, OperationalError

from infra.errors import CheckFailed, FactoryError, Unavailable
from registry import decisions
from registry.chain import Columns, Finding, Head, verify_chain
from registry.decisions import BASE, MOVES, NO_ROW, Decision, Row
from registry.migrations import migrate

_WAIT_SECONDS = 30.0
_RESTART_SECONDS = 60.0
_LOOK_SECONDS = 0.5
# The databases that have answered this process.
_answered: set[str] = set()

_LEDGER = sa.table("ledger", *(sa.column(name) for name in (*Row.model_fields, "lineage_key")))
_IN_ORDER = (_LEDGER.c.feature, _LEDGER.c.number)
# The numbers of the last rows: of each feature, and of each feature's moves for each base release.
_HEADS = sa.select(_LEDGER.c.feature, sa.func.max(_LEDGER.c.number).label("number")).group_by(_LEDGER.c.feature)
_SERVING = (
    sa.select(_LEDGER.c.feature, sa.func.max(_LEDGER.c.number).label("number"))
    .where(_LEDGER.c.action.in_([sa.literal_column(f"'{action}'") for action in MOVES]))
    .group_by(_LEDGER.c.feature, _LEDGER.c.base_release)
)


class LedgerConflict(CheckFailed):
    """Somebody else's decision about the same feature was recorded first."""


class Ledger:
    """Decisions in a database, opened by SQLAlchemy URL (`sqlite:///file`, `postgresql+psycopg://…`).

    Raises:
        FactoryError: the database cannot be reached, is none, or the URL is wrong.
        CheckFailed: in every method that gives rows: one makes no sense any more.
    """

    def __init__(self, url: str) -> None:
        try:
            # A server's connection is closed after use: what watches opens a ledger again and again, and a server that
            # was started anew would find dead ones in a pool.
            at_server = sa.make_url(url).get_backend_name() != "sqlite"
            self._engine = sa.create_engine(url, **({"poolclass": sa.NullPool} if at_server else {}))
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
        return self.append_all([decision], expected_number)[-1]

    def append_all(self, made: Sequence[Decision], expected_number: int | None = None) -> list[Row]:
        """Record decisions about one feature, all of them or none; as `append`."""
        feature = made[0].feature
        rows: list[Row] = []
        try:
            with self._transaction(writes=True) as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(feature))))
                last = self._last(connection, feature)
                if expected_number is not None and (last.number if last else 0) != expected_number:
                    raise _conflict(made[-1])
                for decision in made:
                    last = _following(decision, last)
                    rows.append(last)
                connection.execute(_LEDGER.insert(), [row.to_columns() for row in rows])
        except IntegrityError:
            raise _conflict(made[-1]) from None
        return rows

    def head(self, feature: str) -> Row | None:
        """The feature's last row."""
        with self._transaction() as connection:
            return self._last(connection, feature)

    def heads(self) -> dict[str, Head]:
        """Number and hash of every feature's last row."""
        found = _HEADS.subquery()
        query = sa.select(_LEDGER.c.feature, _LEDGER.c.number, _LEDGER.c.hash).join(found, _same_row(found))
        with self._transaction() as connection:
            return {feature: Head(number, row) for feature, number, row in connection.execute(query)}

    def rows(self, feature: str | None = None) -> list[Row]:
        """All rows of a feature in order, or of all features, one after the other."""
        query = _LEDGER.select().order_by(*_IN_ORDER)
        return self._read(query if feature is None else query.where(_LEDGER.c.feature == feature))

    def serving(self) -> dict[str, list[Row]]:
        """By feature, the rows that put the present production versions there, one for each base release."""
        found = _SERVING.subquery()
        query = sa.select(_LEDGER).join(found, _same_row(found)).order_by(*_IN_ORDER)
        return _by_feature(self._read(query))

    def rollouts(self) -> list[Row]:
        """The last step of every rollout that is under way, feature by feature."""
        begun = sa.select(_LEDGER.c.feature).where(_LEDGER.c.action == "rollout")
        told = _LEDGER.c.action.in_([*MOVES, "rollout"])
        query = _LEDGER.select().where(told, _LEDGER.c.feature.in_(begun)).order_by(*_IN_ORDER)
        return [row for rows in _by_feature(self._read(query)).values() for row in decisions.rollouts(rows)]

    def deciding(self, lineage_keys: Collection[str]) -> dict[str, list[Row]]:
        """By feature, the rows that decide a plan for these lineage keys; the rest of the history changes no state.

        They are each feature's last row, what is in production, what speaks of the keys, and every rollback.
        """
        wanted = sa.union(
            _HEADS,
            _SERVING,
            sa.select(*_IN_ORDER).where(_LEDGER.c.action == sa.literal_column("'roll back'")),
            sa.select(*_IN_ORDER).where(_LEDGER.c.lineage_key.in_(list(lineage_keys))),
        ).subquery()
        return _by_feature(self._read(sa.select(_LEDGER).join(wanted, _same_row(wanted)).order_by(*_IN_ORDER)))

    def production(self, feature: str, base_release: str) -> Row | None:
        """The row that put the present production version for a base release there, or None."""
        return decisions.production(self.rows(feature), base_release)

    def current_release(self) -> Row | None:
        """The row that made the current base release current: its `base_release` is the key, `version` MLflow's."""
        return decisions.last_move(self.rows(BASE))

    def verify(self, heads: Mapping[str, Head] | None = None) -> list[Finding]:
        """What is wrong with the rows; nothing if every row is as it was written and none is missing.

        `heads` are anchored elsewhere, in the channel; without them rows cut off at the end are not noticed.
        """
        found: dict[str, list[Columns]] = {}
        with self._transaction() as connection:
            for columns in connection.execute(_LEDGER.select().order_by(*_IN_ORDER)).mappings():
                found.setdefault(columns["feature"], []).append(dict(columns))
        return verify_chain(found, heads or {})

    def _last(self, connection: sa.Connection, feature: str) -> Row | None:
        query = _LEDGER.select().where(_LEDGER.c.feature == feature).order_by(_LEDGER.c.number.desc()).limit(1)
        found = connection.execute(query).mappings().first()
        return _row(dict(found)) if found else None

    def _read(self, query: sa.Select[tuple[object, ...]]) -> list[Row]:
        with self._transaction() as connection:
            return [_row(dict(found)) for found in connection.execute(query).mappings()]

    @contextmanager
    def _transaction(self, writes: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._connect().execution_options(ledger_writes=writes) as connection, connection.begin():
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            reason = str(error.orig).strip().splitlines()[0]
            if isinstance(error, OperationalError):
                raise Unavailable(f"ledger {shown}: {reason}; check that the database is there and free") from None
            raise FactoryError(f"ledger {shown}: {reason}; bring it back from its backup") from None

    def _connect(self) -> sa.Connection:
        url = self._engine.url.render_as_string(hide_password=False)
        deadline = time.monotonic() + (_RESTART_SECONDS if url in _answered else 0.0)
        while True:
            try:
                connection = self._engine.connect()
            except OperationalError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_LOOK_SECONDS)
            else:
                _answered.add(url)
                return connection


def _row(columns: Columns) -> Row:
    try:
        return Row.from_columns(columns)
    except ValueError:
        where = f"{columns['feature']} row {columns['number']}"
        raise CheckFailed(f"{where} is not as it was written; `factory ledger verify` lists everything") from None


def _following(decision: Decision, last: Row | None) -> Row:
    """The decision as the row after `last`, now."""
    row = Row(
        **{name: getattr(decision, name) for name in Decision.model_fields},
        number=last.number + 1 if last else 1,
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
        previous=last.hash if last else NO_ROW,
        hash=NO_ROW,
    )
    return row.model_copy(update={"hash": row.computed_hash()})


def _conflict(decision: Decision) -> LedgerConflict:
    return LedgerConflict(
        f"{decision.feature}: another decision was recorded while this one ({decision.action} version "
        f"{decision.version}) was made; look at `factory history {decision.feature}` and decide again"
    )


def _same_row(found: sa.Subquery) -> sa.ColumnElement[bool]:
    return sa.and_(_LEDGER.c.feature == found.c.feature, _LEDGER.c.number == found.c.number)


def _by_feature(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.feature, []).append(row)
    return found


def _begin_is_ours(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 would begin transactions at times of its own choosing.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_WAIT_SECONDS * 1000)}")


def _begin(connection: sa.Connection) -> None:
    # A writer takes the lock before it reads the last number; readers do not wait for one another.
    writes = connection.get_execution_options().get("ledger_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
