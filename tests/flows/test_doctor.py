"""`factory doctor` in a workspace that is well, and in copies of it with one fault each, as it would come about."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from flows.cli.main import app
from flows.events import announce_base
from flows.factory import Factory
from infra.settings import Settings
from infra.store import Stage
from registry.channel.metadata import utc_now
from registry.decisions import Row
from registry.promotion import promote
from tests.flows.line import make_feature
from tests.registry.conftest import Place
from tests.servers import free_ports

pytestmark = pytest.mark.servers

FEATURE = "summarization"


def open_workspace(folder: Path) -> Factory:
    return Factory(Settings(home=folder / ".factory", shipped_features=False))


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, one feature, and a workspace with two promoted versions and an output in the store."""
    folder = tmp_path_factory.mktemp("well")
    make_feature(folder / "features" / "brief", "rouge_l")
    factory = open_workspace(folder)
    place = Place(folder, factory.registry, factory.tracking_uri)
    release = place.release()
    for data in ("one", "two"):
        promote(factory.registry, FEATURE, place.version(release, data).version, actor="ann", reason="test")
    factory.workspace.store.build(Stage("data", {"of": "test"}, lambda output, _: (output / "x").write_bytes(b"x")))
    return folder


@pytest.fixture
def project(well: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy; commands run in it. The machine's own room and versions are left out of it."""
    folder = tmp_path / "project"
    shutil.copytree(well, folder)
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("FACTORY_", "PREFECT_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_API_URL", "")  # which a command sets from the settings
    monkeypatch.setattr("infra.checkup._ROOM_GB", 0.0)
    monkeypatch.setattr("infra.checkup.CONSTRAINTS", folder / "constraints.txt")
    (folder / "constraints.txt").write_text("# tested versions\nfilelock==" + _installed("filelock") + "\n")
    settings(folder)
    return folder


def _installed(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def settings(folder: Path, more: str = "") -> None:
    """Write factory.toml with one more line."""
    text = f"shipped_features = false\nfeatures = ['{folder / 'features/brief'}']\n{more}\n"
    (folder / "factory.toml").write_text(text, "utf-8")


def in_ledger(folder: Path, *statements: str) -> None:
    """What somebody with access to the database can do."""
    with sa.create_engine(f"sqlite:///{folder / '.factory/ledger.db'}").begin() as connection:
        for action in ("update", "delete"):
            connection.execute(sa.text(f"DROP TRIGGER IF EXISTS ledger_refuses_{action}"))
        for statement in statements:
            connection.execute(sa.text(statement))


def unknown_setting(folder: Path) -> None:
    settings(folder, "devise = 'cpu'")


def broken_recipe(folder: Path) -> None:
    (folder / "features/brief/recipe.yaml").write_text("feature: brief\n", "utf-8")


def missing_corpus(folder: Path) -> None:
    (folder / "features/brief/corpus/rows.jsonl").unlink()


def no_gpu(folder: Path) -> None:
    settings(folder, "device = 'cuda'")


def other_version(folder: Path) -> None:
    (folder / "constraints.txt").write_text("filelock==0.0.1\n")


def no_mlflow(folder: Path) -> None:
    settings(folder, f"mlflow_uri = 'http://127.0.0.1:{free_ports(1)[0]}'")


def no_ledger(folder: Path) -> None:
    settings(folder, f"ledger_url = 'postgresql+psycopg://ann:pw@127.0.0.1:{free_ports(1)[0]}/ledger'")


def key_for_everybody(folder: Path) -> None:
    (folder / ".factory/keys/snapshot.pem").chmod(0o644)


def secret_for_everybody(folder: Path) -> None:
    settings(folder, "judge_api_key = 'hush'")


def no_credentials(folder: Path) -> None:
    settings(folder, "data_remote = 's3://bucket/data'")


def output_from_the_future(folder: Path) -> None:
    (manifest,) = folder.glob(".factory/store/data/*/stage.json")
    content = json.loads(manifest.read_text("utf-8"))
    manifest.write_text(json.dumps(content | {"created": time.time() + 86_400}))


def row_from_the_future(folder: Path) -> None:
    factory = open_workspace(folder)
    last = factory.ledger.rows(FEATURE)[-1]
    later = (utc_now() + timedelta(days=1)).isoformat(timespec="microseconds")
    row = last.model_copy(update={"number": last.number + 1, "time": later, "previous": last.hash})
    columns = row.model_copy(update={"hash": row.computed_hash()}).to_columns()
    names = [*Row.model_fields, "lineage_key"]
    insert = f"INSERT INTO ledger ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
    with sa.create_engine(f"sqlite:///{folder / '.factory/ledger.db'}").begin() as connection:
        connection.execute(sa.text(insert), columns)


def expired_channel(folder: Path) -> None:
    repository = open_workspace(folder).channel().repository
    repository.now = lambda: utc_now() - timedelta(days=30)
    repository.commit(lambda draft, _: draft.renew.add("snapshot"))


def forged_channel(folder: Path) -> None:
    timestamp = folder / ".factory/channel/metadata/timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":', b'"version": 1', 1))


def lost_channel(folder: Path) -> None:
    (folder / ".factory/channel/metadata/timestamp.json").unlink()


def edited_row(folder: Path) -> None:
    in_ledger(folder, f"UPDATE ledger SET actor = 'eve' WHERE feature = '{FEATURE}' AND number = 1")


def cut_off_row(folder: Path) -> None:
    in_ledger(folder, f"DELETE FROM ledger WHERE feature = '{FEATURE}' AND number = 2")


def alias_moved_by_hand(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=open_workspace(folder).tracking_uri)
    client.set_registered_model_alias(f"adapter-{FEATURE}", "production", "1")


def version_deleted(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=open_workspace(folder).tracking_uri).delete_model_version(f"adapter-{FEATURE}", "2")


def damaged_output(folder: Path) -> None:
    (file,) = folder.glob(".factory/store/data/*/output/x")
    file.write_bytes(b"y")
    open_workspace(folder).workspace.store.find("data", file.parents[1].name)


def killed_build(folder: Path) -> None:
    (folder / ".factory/store/making/training-abc/output").mkdir(parents=True)


def killed_download(folder: Path) -> None:
    (folder / ".factory/bases/fetching-abc").mkdir()


def dead_prefect(folder: Path) -> None:
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{free_ports(1)[0]}/api"


def damaged_events(folder: Path) -> None:
    (folder / ".factory/events.db").write_bytes(b"no database at all" * 100)


def events_that_nobody_fetches(folder: Path) -> None:
    dead_prefect(folder)
    factory = open_workspace(folder)
    announce_base(factory, "hf://org/name")
    with closing(sqlite3.connect(folder / ".factory/events.db")) as connection:
        connection.execute("UPDATE events SET time = '2026-01-01T00:00:00.000+00:00'")
        connection.commit()


def damaged_ledger(folder: Path) -> None:
    (folder / ".factory/ledger.db").write_bytes(b"no database at all" * 100)


FAULTS: list[tuple[Callable[[Path], None], str, str, str]] = [
    (unknown_setting, "settings", "devise", ""),
    (broken_recipe, "settings", "recipe.yaml", ""),
    (missing_corpus, "settings", "no such file", ""),
    (no_gpu, "settings", "finds no GPU", "device"),
    (other_version, "versions", "tested with 0.0.1", "pip install"),
    (no_mlflow, "servers", "MLflow at http", "start it"),
    (no_ledger, "ledger", "ann:***@", "check that the database is there"),
    (key_for_everybody, "credentials", "snapshot.pem", "chmod 600"),
    (secret_for_everybody, "credentials", "judge_api_key", "FACTORY_JUDGE_API_KEY"),
    (no_credentials, "credentials", "no credentials", "AWS_ACCESS_KEY_ID"),
    (output_from_the_future, "clock", "the newest output", "NTP"),
    (row_from_the_future, "clock", "the newest decision", "NTP"),
    (expired_channel, "channel", "has expired", "channel refresh"),
    (forged_channel, "channel", "timestamp.json", ""),
    (lost_channel, "channel", "nothing is published", "ledger repair"),
    (edited_row, "ledger", "row 1", "backup"),
    (cut_off_row, "ledger", "row", "backup"),
    (alias_moved_by_hand, "aliases", "alias production is 1, and should be 2", "ledger repair"),
    (version_deleted, "aliases", "MLflow does not have it", "backup"),
    (damaged_output, "store", "damaged", "factory gc"),
    (killed_build, "store", "half-made", "factory gc"),
    (dead_prefect, "servers", "Prefect at http", "start it"),
    (damaged_events, "events", "events.db: file is not a database", "move it away"),
    (events_that_nobody_fetches, "events", "since 2026-01-01T00:00", "see that Prefect's server answers"),
    (damaged_ledger, "ledger", "not a database", ""),
    (killed_download, "store", "fetching-abc", "factory gc"),
]


def examine(code: int = 1) -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert found["healthy"] is (code == 0)
    return list(found["findings"])


def test_nothing_is_wrong_with_a_workspace_that_is_well(project: Path) -> None:
    assert examine(code=0) == []
    assert CliRunner().invoke(app, ["doctor"]).stdout == "nothing is wrong\n"


@pytest.mark.parametrize(("plant", "check", "problem", "remedy"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_fault_is_found_with_its_remedy(
    plant: Callable[[Path], None],
    check: str,
    problem: str,
    remedy: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    plant(project)
    found = examine()
    assert [one for one in found if one["check"] == check and problem in one["problem"] and remedy in one["remedy"]]
    assert all(one["remedy"] for one in found)
    assert "pw" not in json.dumps(found) and "hush" not in json.dumps(found)


def test_a_full_disk_is_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.checkup._ROOM_GB", 1e9)
    assert [(one["check"], "GB free" in one["problem"]) for one in examine()] == [("disk", True)]


def test_a_process_that_outlived_its_supervisor_is_found(project: Path) -> None:
    marked = os.environ | {"FACTORY_STACK": str(project / ".factory/stack")}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=marked) as orphan:
        found = examine()
        orphan.kill()
    assert [(one["check"], one["remedy"]) for one in found] == [("processes", "`factory down` ends it")]


@pytest.fixture
def late_server() -> Iterator[str]:
    """A server that is healthy, and whose clock is an hour behind."""

    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - 3600)

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests are quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/api"
    server.shutdown()
    server.server_close()


def test_clocks_that_differ_are_found(project: Path, late_server: str) -> None:
    settings(project, f"prefect_api_url = '{late_server}'")
    assert [(one["check"], "differ by 60 minutes" in one["problem"]) for one in examine()] == [("clock", True)]


def test_what_kills_left_is_removed_by_gc_once_it_is_old(project: Path) -> None:
    damaged_output(project)
    killed_build(project)
    killed_download(project)
    (project / ".factory/answers/abc").mkdir(parents=True)
    for older_than, expected in (("1d", 0), ("0h", 4), ("0h", 0)):
        done = CliRunner().invoke(app, ["gc", "--json", "--older-than", older_than], catch_exceptions=False)
        assert len(json.loads(done.stdout)["leftovers"]) == expected
    assert examine(code=0) == []
