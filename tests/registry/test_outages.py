"""Servers that go away and come back, clocks that go backwards: what was begun ends well, and nothing is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.errors import FactoryError
from infra.s3 import be_patient
from registry import ledger as ledgers
from registry.channel import open_channel
from registry.channel.metadata import utc_now
from registry.ledger import Ledger
from tests.registry.samples import make_decision, make_lineage
from tests.registry.workshop import SUMMARIES, Workshop
from tests.servers import PUBLIC_BUCKET, free_ports, postgres_server, s3_server

pytestmark = pytest.mark.servers

DECISION = make_decision("brief", "promote", 1, make_lineage("a" * 64))


def later(seconds: float, work: Callable[[], object]) -> threading.Timer:
    """Do something in the background, as whoever restarts a server does."""
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


def test_a_ledger_waits_for_a_postgresql_that_is_restarted(tmp_path: Path, stack: ExitStack) -> None:
    (port,) = free_ports(1)
    with postgres_server(tmp_path, port) as url:
        ledger = Ledger(url)
        ledger.append(DECISION)
    back = later(2, lambda: stack.enter_context(postgres_server(tmp_path, port)))
    started = time.monotonic()
    assert ledger.append(DECISION).number == 2  # over a connection of the server that was
    assert time.monotonic() - started > 1.5
    back.join()
    assert [row.number for row in Ledger(url).rows("brief")] == [1, 2] and Ledger(url).verify() == []


def test_a_database_that_never_answered_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    url = f"postgresql+psycopg://ann:secret@127.0.0.1:{port}/ledger"
    started = time.monotonic()
    with pytest.raises(FactoryError) as told:
        Ledger(url)
    assert time.monotonic() - started < 5 and "secret" not in str(told.value)
    monkeypatch.setattr(ledgers, "_RESTART_SECONDS", 1.0)
    with postgres_server(tmp_path, port):
        ledger = Ledger(f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres")
    with pytest.raises(FactoryError, match="check that the database is there"):
        ledger.rows()  # it does not come back


@pytest.mark.slow
def test_a_publication_waits_for_an_s3_that_is_away(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    monkeypatch.delenv("AWS_RETRY_MODE", raising=False)
    (tmp_path / "s3").mkdir()
    ports = free_ports(4)
    with s3_server(tmp_path / "s3", ports) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        boto3.Session().client("s3").create_bucket(Bucket=PUBLIC_BUCKET)
        shop = Workshop(tmp_path / "shop", f"s3://{PUBLIC_BUCKET}/channel")
        release = shop.release()
    back = later(2, lambda: stack.enter_context(s3_server(tmp_path / "s3", ports)))
    be_patient()
    row = shop.promote(release)
    back.join()
    assert shop.device(channel=f"{server.endpoint}/{PUBLIC_BUCKET}/channel").pull(SUMMARIES, release[0]).version == 1
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
