"""The whole stack as real processes on loopback: PostgreSQL, S3, Prefect, MLflow, workers, and what wakes them.

Nothing here imports the flows: everything is asked for and looked at from outside, as a team would.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
import sqlalchemy as sa

from flows.endpoint import sign
from infra.locks import is_held
from registry.decisions import Row
from registry.ledger import Ledger
from tests.flows.line import ROOT, factory, make_project
from tests.servers import PUBLIC_BUCKET, Program, S3Server, free_ports, postgres_program, s3_program

PATIENCE = 900.0
_LOOK_SECONDS = 0.5
_SECRET = "the drill's secret for triggers"
_PROGRAMS = Path(sys.executable).parent


class Stack:
    """A project and the servers that it uses; `told` is what the webhook got."""

    def __init__(self, folder: Path) -> None:
        self.project = make_project(folder / "project")
        self._folder, self._exit = folder, contextlib.ExitStack()
        self.told: list[str] = []
        self.programs: dict[str, Program] = {}
        self.workers: dict[str, Program] = {}
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """Start every server, enter the deployments, start two workers and the watch."""
        s3_folder, pg_folder = self._folder / "s3", self._folder / "postgres"
        s3_folder.mkdir()
        pg_folder.mkdir()
        self.s3, self.programs["s3"] = s3_program(s3_folder)
        url, self.programs["postgres"] = postgres_program(pg_folder)
        for name in ("s3", "postgres"):
            self._exit.enter_context(self.programs[name].running())
        _make_databases(url, "ledger", "mlflow", "prefect")
        server, _, _ = url.rpartition("/")
        self.ledger_url = f"{server}/ledger"
        prefect, mlflow, self._port = free_ports(3)
        self.api, mlflow_url = f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{mlflow}"
        hook = self._exit.enter_context(_webhook(self.told))
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("FACTORY_", "PREFECT_"))}
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        self.environment = ours | {
            **self.s3.environment,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONPATH": os.pathsep.join([*(part for part in before if part), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(self._folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"{server.replace('psycopg', 'asyncpg')}/prefect",
            "FACTORY_LEDGER_URL": self.ledger_url,
            "FACTORY_MLFLOW_URI": mlflow_url,
            "FACTORY_CHANNEL": f"s3://{PUBLIC_BUCKET}/channel",
            "FACTORY_TRIGGER_SECRET": _SECRET,
            "FACTORY_NOTIFY_URL": hook,
            "FACTORY_ACTOR": "robot",
        }
        client = self.s3_client()
        for bucket in (PUBLIC_BUCKET, "artifacts", "bases"):
            client.create_bucket(Bucket=bucket)
        store = f"{server}/mlflow"
        options = ["--backend-store-uri", store, "--artifacts-destination", "s3://artifacts", "--workers", "1"]
        self._run("prefect", ["prefect", "server", "start", "--port", str(prefect)], f"{self.api}/health")
        self._run("mlflow", ["mlflow", "server", *options, "--port", str(mlflow)], f"{mlflow_url}/health")
        self.factory("init")
        self.factory("deploy", "--every", "60s", "--builds", "2")
        for name in ("one", "two"):
            self.start_worker(name)
        listen = f"127.0.0.1:{self._port}"
        command = ["factory", "watch", "--every", "5s", "--listen", listen]
        self._run("watch", command, f"http://{listen}/health")

    def stop(self) -> None:
        """Stop everything."""
        for worker in self.workers.values():
            worker.stop()
        self._exit.close()

    def start_worker(self, name: str) -> None:
        """A worker that takes up to three runs at once."""
        command = [*_command("prefect"), "worker", "start", "--pool", "factory", "--name", name, "--limit", "3"]
        log = self.project / f"worker-{name}.log"
        worker = Program(
            command, log, lambda: f"'{name}' started" in log.read_text("utf-8"), environment=self.environment
        )
        worker.start()
        self.workers[name] = worker

    def holds(self, part: str) -> bool:
        """Whether some run holds a part of the workspace now; its .pid file outlives it."""
        return is_held(self.project / ".factory/locks" / part)

    def making(self, stage: str) -> bool:
        """Whether a stage of this name is being built now."""
        return any(path.is_dir() for path in (self.project / ".factory/store/making").glob(f"{stage}-*"))

    def stored(self) -> dict[Path, bytes]:
        """What the store says about each output that is finished."""
        return {path: path.read_bytes() for path in (self.project / ".factory/store").glob("*/*/stage.json")}

    def kill_worker_in(self, stage: str, part: str, flow: str) -> tuple[str, str]:
        """Kill -9 the worker whose run is in a stage; returns the worker's name, and the id of the run, which lived.

        A stage may be over before anybody sees it: then the run is killed right after it. It stands still meanwhile.
        """
        known, deadline = self.stored().keys(), time.monotonic() + PATIENCE

        def begun() -> bool:
            return self.making(stage) or any(path.parents[1].name == stage for path in self.stored().keys() - known)

        while not (begun() and self.holds(part)):
            assert time.monotonic() < deadline, self._logs()
            time.sleep(0.01)
        psutil.Process(self._holder(part)).suspend()
        tag = f"factory:{part.removeprefix('feature-')}"
        (run,) = [one for one in self.runs(flow, live=True) if tag in one["tags"] and one["state_type"] == "RUNNING"]
        assert self.holds(part)
        return self.kill_worker_of(part), run["id"]

    def kill_worker_of(self, part: str) -> str:
        """Kill -9 the worker whose run holds a part of the workspace, with all that it started; returns its name."""
        holder = psutil.Process(self._holder(part))
        above = {process.pid for process in (holder, *holder.parents())}
        (name,) = [name for name, worker in self.workers.items() if worker.pid in above]
        worker = psutil.Process(self.workers[name].pid)
        for process in (worker, *worker.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.workers.pop(name).stop()
        return name

    def _holder(self, part: str) -> int:
        return int((self.project / f".factory/locks/{part}.pid").read_text("utf-8"))

    def factory(self, *arguments: str, code: int = 0, actor: str = "robot") -> str:
        """A `factory` command of somebody at the project."""
        more = self.environment | {"FACTORY_ACTOR": actor}
        return factory(self.project, *arguments, code=code, timeout=PATIENCE, more=more).stdout

    def post(self, content: object) -> int:
        """Post a signed request to the factory; returns the status."""
        body, identity, now = json.dumps(content).encode(), str(uuid.uuid4()), int(time.time())
        headers = {"webhook-id": identity, "webhook-timestamp": str(now)}
        headers["webhook-signature"] = sign(_SECRET, identity, now, body)
        return httpx.post(f"http://127.0.0.1:{self._port}/", content=body, headers=headers, timeout=60).status_code

    def upload(self, folder: Path, prefix: str) -> str:
        """Put a model into the bucket of bases; returns its source."""
        for path in folder.iterdir():
            self.s3_client().upload_file(str(path), "bases", f"{prefix}/{path.name}")
        return f"s3://bases/{prefix}"

    def rows(self, feature: str) -> list[Row]:
        """A feature's decisions."""
        return Ledger(self.ledger_url).rows(feature)

    def actions(self, feature: str) -> list[tuple[str, int]]:
        """What was decided about a feature, and the version."""
        return [(row.action, row.version) for row in self.rows(feature)]

    def state_of(self, run: str) -> str:
        """How Prefect's server says that a run is, or how it ended."""
        return str(httpx.get(f"{self.api}/flow_runs/{run}", timeout=60).raise_for_status().json()["state_type"])

    def runs(self, flow: str, *, live: bool = False) -> list[dict[str, Any]]:
        """Prefect's runs of a flow that have begun, or are still to end."""
        kinds = ["SCHEDULED", "PENDING", "RUNNING"] if live else ["RUNNING", "COMPLETED", "FAILED", "CRASHED"]
        wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": kinds}}}}
        return list(httpx.post(f"{self.api}/flow_runs/filter", json=wanted, timeout=60).raise_for_status().json())

    def until(self, what: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Look again and again until something is so."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                raise AssertionError(f"not so after {seconds:.0f} s; {self._logs()}")
            time.sleep(_LOOK_SECONDS)

    def quiet(self) -> None:
        """Wait until no build is under way or to begin."""
        self.until(lambda: not any(self.runs(flow, live=True) for flow in ("release-base", "retrain")))

    def s3_client(self) -> Any:
        """A client of the S3 server."""
        server: S3Server = self.s3
        keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
        return boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", **keys)

    def _run(self, name: str, command: list[str], health: str) -> None:
        def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(health, timeout=5).status_code == 200
            return False

        line, log = [*_command(command[0]), *command[1:]], self.project / f"{name}.log"
        self.programs[name] = Program(line, log, answers, environment=self.environment)
        self._exit.enter_context(self.programs[name].running())

    def _logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text('utf-8', 'replace')[-3000:]}" for path in self.project.glob("*.log")
        )


def _command(program: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main"] if program == "factory" else [str(_PROGRAMS / program)]


def _make_databases(url: str, *names: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()


@contextlib.contextmanager
def _webhook(told: list[str]) -> Iterator[str]:
    """What people's chat system would be: keeps the texts that it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook"
    finally:
        server.shutdown()
        server.server_close()
