"""The chain of rows: whatever was done to the database, it is found, and what the channel has followed stays found."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.chain import Columns, Head, verify_chain
from registry.decisions import Row
from registry.ledger import Ledger
from tests.registry.samples import make_decision, make_lineage

LINEAGE = make_lineage("a" * 64)


def _rows(count: int, feature: str = "writing") -> list[Row]:
    ledger = Ledger("sqlite://")
    return [ledger.append(make_decision(feature, "promote", version, LINEAGE)) for version in range(1, count + 1)]


def _columns(rows: list[Row]) -> list[Columns]:
    return [row.to_columns() for row in rows]


def _head(row: Row) -> Head:
    return Head(row.number, row.hash)


def _chained_anew(rows: list[Row], start: int) -> list[Row]:
    """What somebody who knows how rows are hashed would write: a row changed, and all that follow chained anew."""
    anew = rows[:start]
    for row in rows[start:]:
        changed = row.model_copy(update={"reason": "other"}) if len(anew) == start else row
        linked = changed.model_copy(update={"previous": anew[-1].hash if anew else row.previous})
        anew.append(linked.model_copy(update={"hash": linked.computed_hash()}))
    return anew


ROWS = _rows(6)


def test_a_whole_chain_has_no_findings_whichever_row_is_anchored() -> None:
    for row in ROWS:
        assert verify_chain({"writing": _columns(ROWS)}, {"writing": _head(row)}) == []
    assert verify_chain({}, {}) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_whatever_is_taken_out_reordered_or_cut_off_is_found(at: int, count: int, chance: random.Random) -> None:
    head = {"writing": _head(ROWS[-1])}
    taken = _columns(ROWS[:at] + ROWS[at + count :])
    assert verify_chain({"writing": taken}, head) != []
    order = list(ROWS)
    chance.shuffle(order)
    numbered = [{**row.to_columns(), "number": number} for number, row in enumerate(order, start=1)]
    assert (verify_chain({"writing": numbered}, head) == []) == (order == ROWS)


@pytest.mark.parametrize("kept", range(6))
def test_rows_cut_off_at_the_end_are_found_by_the_head_and_only_by_it(kept: int) -> None:
    rows = {"writing": _columns(ROWS[:kept])} if kept else {}
    assert verify_chain(rows, {}) == []
    (finding,) = verify_chain(rows, {"writing": _head(ROWS[-1])})
    assert (finding.feature, finding.number) == ("writing", kept)
    assert "cut off" in finding.problem


@pytest.mark.parametrize("start", range(6))
def test_a_chain_that_was_written_anew_is_found_by_the_head_and_only_by_it(start: int) -> None:
    anew = _columns(_chained_anew(ROWS, start))
    assert verify_chain({"writing": anew}, {}) == []
    (finding,) = verify_chain({"writing": anew}, {"writing": _head(ROWS[-1])})
    assert str(finding).startswith("writing row 6: is not the row that the channel follows")


def test_each_feature_is_checked_by_itself() -> None:
    other = _rows(2, "summarization")
    rows = {"writing": _columns(ROWS[1:]), "summarization": _columns(other)}
    assert {finding.feature for finding in verify_chain(rows, {})} == {"writing"}


def test_rows_from_before_a_column_was_added_keep_their_hash(tmp_path: Path) -> None:
    """A ledger of the first schema is migrated, stays whole, and goes on."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    first = make_decision("writing", "promote", 1, LINEAGE, evaluation=None)
    _only_first_migration(url, lambda: Ledger(url).append(first))
    ledger = Ledger(url)
    assert ledger.append(make_decision("writing", "promote", 2, LINEAGE)).number == 2
    assert [row.evaluation for row in ledger.rows("writing")] == [None, LINEAGE.evaluation]
    assert ledger.verify() == []


def _only_first_migration(url: str, write: Callable[[], Row]) -> None:
    """Leave the database as it was before the second migration, with one row."""
    row = write()
    with sa.create_engine(url).begin() as connection:
        for name in ("ledger_moves", "ledger_rollbacks", "ledger_lineage"):
            connection.execute(sa.text(f"DROP INDEX {name}"))
        for name in ("evaluation", "champion"):
            connection.execute(sa.text(f"ALTER TABLE ledger DROP COLUMN {name}"))
        connection.execute(sa.text("DELETE FROM ledger_migration WHERE name = 'm002_verdicts'"))
        old = row.model_dump(mode="json", exclude={"hash", "evaluation", "champion"})
        from infra.canonical import digest

        assert connection.scalar(sa.text("SELECT hash FROM ledger")) == digest(old)
