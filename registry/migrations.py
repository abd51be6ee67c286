"""The ledger's schema, as small steps that run in order, once each. Never change a step: add the next one.

SQLite and PostgreSQL only; both run these statements inside the transaction of `migrate`.
"""

from sqlalchemy import Connection, text

# PostgreSQL only: taken while the schema is changed, so that two processes do not create it at once.
_LOCK = 7_391_180_551


def migrate(connection: Connection) -> None:
    """Bring the schema up to date inside the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text("CREATE TABLE IF NOT EXISTS ledger_migration (name TEXT PRIMARY KEY)"))
    done = set(connection.scalars(text("SELECT name FROM ledger_migration")))
    for step in (m001_initial, m002_verdicts):
        if step.__name__ not in done:
            step(connection)
            connection.execute(text("INSERT INTO ledger_migration VALUES (:name)"), {"name": step.__name__})


def m001_initial(connection: Connection) -> None:
    """The table, and triggers that refuse every change to what is written."""
    connection.execute(
        text(
            """
            CREATE TABLE ledger (
                feature TEXT NOT NULL,
                number INTEGER NOT NULL,
                base_release TEXT NOT NULL,
                action TEXT NOT NULL,
                version INTEGER NOT NULL,
                lineage TEXT NOT NULL,
                lineage_key TEXT NOT NULL,
                evaluation_key TEXT,
                package TEXT NOT NULL,
                replaced INTEGER,
                actor TEXT NOT NULL,
                reason TEXT NOT NULL,
                evidence TEXT,
                overruled TEXT NOT NULL,
                share DOUBLE PRECISION,
                time TEXT NOT NULL,
                previous TEXT NOT NULL,
                hash TEXT NOT NULL,
                PRIMARY KEY (feature, number)
            )
            """
        )
    )
    refuse = _refuse_in_sqlite if connection.dialect.name == "sqlite" else _refuse_in_postgresql
    refuse(connection)


def _refuse_in_sqlite(connection: Connection) -> None:
    for action in ("UPDATE", "DELETE"):
        connection.execute(
            text(
                f"CREATE TRIGGER ledger_refuses_{action.lower()} BEFORE {action} ON ledger "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
        )


def _refuse_in_postgresql(connection: Connection) -> None:
    connection.execute(
        text(
            "CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
        )
    )
    connection.execute(
        text(
            "CREATE TRIGGER ledger_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()"
        )
    )


def m002_verdicts(connection: Connection) -> None:
    """What a version was judged by and against, and indexes for what is asked of the whole table at once."""
    for statement in (
        "ALTER TABLE ledger ADD COLUMN evaluation TEXT",
        "ALTER TABLE ledger ADD COLUMN champion TEXT",
        "CREATE INDEX ledger_moves ON ledger (feature, base_release, number) WHERE action IN ('promote', 'roll back')",
        "CREATE INDEX ledger_rollbacks ON ledger (feature, number) WHERE action = 'roll back'",
        "CREATE INDEX ledger_lineage ON ledger (lineage_key, feature, number)",
    ):
        connection.execute(text(statement))
