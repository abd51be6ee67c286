"""The ledger: gapless numbers, an unbroken chain, no change ever, one winner of two."""

import tempfile
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.canonical import digest
from infra.errors import CheckFailed, FactoryError
from registry.decisions import NO_ROW, Action, Decision, Row
from registry.ledger import Ledger, LedgerConflict

RELEASE = digest("release")


def _decision(feature: str = "writing", version: int = 1, **values: object) -> Decision:
    fields: dict[str, object] = {
        "feature": feature,
        "base_release": RELEASE,
        "action": "promote",
        "version": version,
        "package": digest(version),
        "actor": "tester",
        "reason": "test",
    }
    return Decision.model_validate(fields | values)


def _count(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM ledger")) or 0)


def _tamper(url: str, statement: str, **values: object) -> None:
    """What somebody with access to the file can do."""
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TRIGGER IF EXISTS ledger_refuses_update"))
        connection.execute(sa.text("DROP TRIGGER IF EXISTS ledger_refuses_delete"))
        connection.execute(sa.text(statement), values)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


keys = st.sampled_from([digest("a"), digest("b")])
decisions = st.builds(
    Decision,
    feature=st.sampled_from(["writing", "summarization", "base"]),
    base_release=keys,
    action=st.sampled_from(get_args(Action)),
    version=st.integers(1, 10**6),
    lineage=st.dictionaries(st.text(max_size=8), keys, max_size=3),
    evaluation=st.none() | st.dictionaries(st.text(max_size=8), keys, max_size=3),
    evaluation_key=st.none() | keys,
    package=keys,
    replaced=st.none() | st.integers(1, 9),
    actor=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    reason=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40),
    evidence=st.none() | keys,
    champion=st.none() | keys,
    overruled=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    share=st.none() | st.floats(0.001, 1),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(decisions, st.integers(-1, 4)), max_size=12))
def test_rows_are_numbered_chained_and_read_back_as_written(steps: list[tuple[Decision, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        written: dict[str, list[Row]] = {}
        for decision, expected in steps:
            before = written.setdefault(decision.feature, [])
            if expected in (-1, len(before)):
                row = ledger.append(decision, None if expected == -1 else expected)
                assert (row.number, row.previous) == (len(before) + 1, before[-1].hash if before else NO_ROW)
                assert all(getattr(row, name) == getattr(decision, name) for name in Decision.model_fields)
                before.append(row)
            else:
                with pytest.raises(LedgerConflict):
                    ledger.append(decision, expected)
        again = Ledger(f"sqlite:///{folder}/ledger.db")
        for feature, rows in written.items():
            assert again.rows(feature) == rows
            assert again.head(feature) == (rows[-1] if rows else None)
        assert len(again.rows()) == sum(map(len, written.values()))
        assert again.verify() == []


@pytest.mark.parametrize("statement", ["UPDATE ledger SET reason = 'x'", "DELETE FROM ledger"])
def test_the_database_refuses_change(url: str, statement: str) -> None:
    Ledger(url).append(_decision())
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(statement))
    assert _count(url) == 1


@pytest.mark.parametrize("column", [*Row.model_fields, "lineage_key"])
def test_verify_finds_every_changed_column(url: str, column: str) -> None:
    ledger = Ledger(url)
    for version in (1, 2, 3):
        ledger.append(
            _decision(
                version=version,
                evaluation={"held_out": digest("h")},
                evaluation_key=digest("e"),
                evidence=digest("e"),
                champion=digest("c"),
                replaced=9,
                share=0.5,
            )
        )
    changed: dict[str, object] = {
        "number": 7, "version": 9, "replaced": 4, "share": 0.25, "lineage": '{"data":"x"}', "evaluation": None,
        "overruled": '["gate"]',
        "action": "reject", "time": "2020-01-01T00:00:00+00:00", "feature": "summarization", "actor": "x",
        "reason": "x",
    }  # fmt: skip
    _tamper(url, f"UPDATE ledger SET {column} = :new WHERE number = 2", new=changed.get(column, digest("other")))
    assert any("writing row" in problem or "summarization row" in problem for problem in map(str, ledger.verify()))


def test_verify_finds_a_missing_row(url: str) -> None:
    ledger = Ledger(url)
    for version in (1, 2, 3):
        ledger.append(_decision(version=version))
    _tamper(url, "DELETE FROM ledger WHERE number = 2")
    assert str(ledger.verify()[0]) == "writing row 3: row 2 is missing before it"


def test_opening_again_changes_nothing(url: str) -> None:
    Ledger(url).append(_decision())
    assert Ledger(url).append(_decision()).number == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("sqlite:////no/such/folder/ledger.db", "unable to open"),
        ("nonsense", "ledger_url"),
        ("nosuchdatabase://host/name", "ledger_url"),
    ],
)
def test_a_bad_url_is_one_line(bad: str, message: str) -> None:
    with pytest.raises(FactoryError, match=message) as caught:
        Ledger(bad)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(
        FactoryError, match=r"ledger\.db: file is not a database; bring it back from its backup"
    ) as told:
        Ledger(f"sqlite:///{path}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", ["action = 'celebrate'", "lineage = 'no json'", "version = -1"])
def test_a_row_that_makes_no_sense_any_more_is_told_in_one_line(tmp_path: Path, damage: str) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    for version in (1, 2):
        ledger.append(_decision(version=version))
    _tamper(url, f"UPDATE ledger SET {damage} WHERE number = 2")
    for read in (
        ledger.rows,
        lambda: ledger.head("writing"),
        lambda: ledger.append(_decision(version=3)),
        lambda: ledger.deciding([]),
    ):
        with pytest.raises(
            CheckFailed, match=r"^writing row 2 is not as it was written; .*`factory ledger verify`"
        ) as told:
            read()
        assert "\n" not in str(told.value)
    assert [(finding.number, finding.problem) for finding in ledger.verify()] == [
        (2, "was changed after it was written")
    ]
    assert ledger.heads()["writing"].number == 2
