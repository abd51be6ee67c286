"""Two processes decide at once, on SQLite and on PostgreSQL: one wins, the other is told, numbers have no gap."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.errors import FactoryError
from registry.ledger import Ledger
from registry.promotion import promote
from tests.registry.conftest import Place
from tests.registry.decider import FEATURE, WHO, Decider
from tests.registry.samples import make_decision, make_lineage
from tests.servers import postgres_server

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[2]
DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the kind that the test is parametrized with."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: str = request.getfixturevalue("postgres")
    name = f"test_{abs(hash(tmp_path))}"
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.removesuffix("postgres") + name


on_both = pytest.mark.parametrize("url", DATABASES, indirect=True)


@pytest.fixture
def appenders(url: str) -> Iterator[list["subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "tests.registry.appender", url]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name in ("ann", "ben")
    ]
    yield processes
    for process in processes:
        process.communicate()


@on_both
def test_of_two_appending_processes_one_wins(url: str, appenders: list["subprocess.Popen[str]"]) -> None:
    def tell(line: str) -> list[str]:
        for process in appenders:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
        return answers()

    def answers() -> list[str]:
        return sorted(process.stdout.readline().strip() for process in appenders if process.stdout)

    assert answers() == ["ready", "ready"]
    for number in range(20):
        assert tell(f"{number}\n") == ["lost", "won"]
    for _ in range(10):
        assert tell("any\n") == ["won", "won"]
    ledger = Ledger(url)
    assert [row.number for row in ledger.rows("writing")] == list(range(1, 41))
    assert ledger.verify() == []


@on_both
def test_of_two_promotions_at_once_one_wins(url: str, tmp_path: Path, open_place: Callable[..., Place]) -> None:
    """Both passed against version 1; whichever comes second was not tested against what is then in production."""
    folder = tmp_path / "registry"
    place = open_place(folder, url)
    release = place.release()
    promote(place.registry, FEATURE, place.version(release).version, **WHO)
    for data in ("two", "three"):
        place.version(release, data)
    deciders = [Decider(folder, url) for _ in range(2)]
    try:
        for round_ in range(4):
            before = len(place.registry.ledger.rows(FEATURE))
            for decider, version in zip(deciders, (2, 3), strict=True):
                decider.start("promote", version=version)
            won, told = [], []
            for decider, version in zip(deciders, (2, 3), strict=True):
                try:
                    decider.answer()
                    won.append(version)
                except FactoryError as error:
                    told.append(str(error))
            assert (len(won), len(told)) == (1, 1), f"round {round_}: {told}"
            assert "another decision was recorded" in told[0] or "but version" in told[0]
            state = deciders[0].ask("state")
            assert state["ledger"] == state["alias"] == state["channel"] == won[0]
            assert (state["findings"], state["unfinished"]) == ([], [])
            assert [row[0] for row in state["rows"]] == list(range(1, before + 2))
            deciders[round_ % 2].ask("rollback")
    finally:
        for decider in deciders:
            decider.stop()


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_postgresql_keeps_what_sqlite_keeps(url: str) -> None:
    """Rows read back as written, in order and chained; the database refuses change; opening again changes nothing."""
    lineages = [make_lineage("a" * 64, data) for data in ("one", "two")]
    ledger = Ledger(url)
    written = [ledger.append(make_decision("writing", "promote", n, lineages[n - 1], reason="é\n'\"")) for n in (1, 2)]
    written.append(ledger.append(make_decision("writing", "roll back", 1, lineages[0], replaced=2)))
    ledger.append(make_decision("base", "promote", 1, lineages[0], evaluation=None, share=0.25))
    again = Ledger(url)
    assert again.rows("writing") == written
    assert again.verify() == []
    assert again.serving()["writing"] == written[-1:]
    assert again.deciding([lineages[1].key])["writing"] == written[1:]
    assert again.heads()["writing"] == (3, written[-1].hash)
    for statement in ("UPDATE ledger SET reason = 'x'", "DELETE FROM ledger", "TRUNCATE ledger"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(url).begin() as connection:
            connection.execute(sa.text(statement))


def test_an_unreachable_server_is_one_line() -> None:
    with pytest.raises(FactoryError, match="check that the database is there") as caught:
        Ledger("postgresql+psycopg://somebody:secret@127.0.0.1:1/none")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
