"""Servers that go away and come back, clocks that go backwards: what was begun ends well, and nothing is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.errors import FactoryError, Unavailable
from infra.s3 import be_patient
from registry import ledger as ledgers
from registry.catalog import Catalog
from registry.channel import open_channel
from registry.channel.metadata import utc_now
from registry.ledger import Ledger
from tests.registry.samples import make_decision, make_lineage
from tests.registry.workshop import SUMMARIES, Workshop
from tests.servers import PUBLIC_BUCKET, Program, free_ports, postgres_program, s3_program

pytestmark = pytest.mark.servers

DECISION = make_decision("brief", "promote", 1, make_lineage("a" * 64))


def later(seconds: float, work: Callable[[], object]) -> threading.Timer:
    """Do something in the background, as whoever restarts a server does."""
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[tuple[str, Program]]:
    url, program = postgres_program(tmp_path)
    with program.running():
        yield url, program


def test_a_ledger_waits_for_a_postgresql_that_is_restarted(postgres: tuple[str, Program]) -> None:
    url, program = postgres
    ledger = Ledger(url)
    ledger.append(DECISION)
    program.stop()
    back = later(2, program.start)
    started = time.monotonic()
    assert ledger.append(DECISION).number == 2  # over a connection of the server that was
    assert time.monotonic() - started > 1.5
    back.join()
    assert [row.number for row in Ledger(url).rows("brief")] == [1, 2] and Ledger(url).verify() == []


def test_a_database_that_never_answered_is_told_at_once(
    postgres: tuple[str, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    with pytest.raises(FactoryError) as told:
        Ledger(f"postgresql+psycopg://ann:secret@127.0.0.1:{free_ports(1)[0]}/ledger")
    assert time.monotonic() - started < 5 and "secret" not in str(told.value)
    monkeypatch.setattr(ledgers, "_RESTART_SECONDS", 1.0)
    url, program = postgres
    ledger = Ledger(url)
    program.stop()
    with pytest.raises(FactoryError, match="check that the database is there"):
        ledger.rows()  # it does not come back


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "http"])
def test_an_mlflow_that_never_answered_is_told_in_one_line_without_its_password(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    catalog = Catalog(f"{kind}://ann:secret@127.0.0.1:{free_ports(1)[0]}/mlflow", tmp_path.as_uri(), tmp_path)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"MLflow at .*127\.0\.0\.1.*check the server and mlflow_uri") as told:
        catalog.releases()
    assert "secret" not in str(told.value) and "\n" not in str(told.value)
    assert time.monotonic() - started < 30  # with MLflow's import


def test_an_address_of_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=r"MLflow at mssql\+nothing://"):
        Catalog("mssql+nothing://host/mlflow", tmp_path.as_uri(), tmp_path).releases()


@pytest.mark.slow
def test_a_publication_waits_for_an_s3_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    (tmp_path / "s3").mkdir()
    server, program = s3_program(tmp_path / "s3")
    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with program.running():
        boto3.Session().client("s3").create_bucket(Bucket=PUBLIC_BUCKET)
        shop = Workshop(tmp_path / "shop", f"s3://{PUBLIC_BUCKET}/channel")
        release = shop.release()
        program.stop()
        back = later(2, program.start)
        be_patient()
        row = shop.promote(release)
        back.join()
        device = shop.device(channel=f"{server.endpoint}/{PUBLIC_BUCKET}/channel")
        assert device.pull(SUMMARIES, release[0]).version == 1
        assert open_channel(shop.location, tmp_path / "shop/keys").anchored_heads()[SUMMARIES].hash == row.hash


def test_a_clock_that_goes_backwards_loses_no_decision_and_no_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path, now=lambda: utc_now() + timedelta(hours=3))

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Ahead":
            return cls.fromtimestamp(time.time() + 3 * 3600, UTC)

    with monkeypatch.context() as clock:
        clock.setattr(ledgers, "datetime", Ahead)
        release = shop.release()
        shop.promote(release)
    device = shop.device()
    assert device.pull(SUMMARIES, release[0]).version == 1
    shop.now = utc_now  # three hours earlier
    shop.promote(release, version=2)
    first, second = shop.ledger.rows(SUMMARIES)
    assert first.time > second.time and (first.number, second.number) == (1, 2)
    assert shop.ledger.verify(shop.channel.anchored_heads()) == []
    assert device.pull(SUMMARIES, release[0]).version == 2
