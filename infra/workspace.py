"""The workspace: one folder that holds everything a factory knows, unless settings name a server for it."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from infra.canonical import canonical_json
from infra.errors import FactoryError
from infra.store import Store


@dataclass(frozen=True)
class KnownBase:
    """A base model that was fetched: where from, the digest of its content, and when."""

    source: str
    digest: str
    fetched: float


class Workspace:
    """Paths inside the workspace folder, made on first use.

    Raises:
        FactoryError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.data = root / "data"
        self.channel = root / "channel"
        self.keys = root / "keys"
        self.artifacts = root / "artifacts"
        self.books = root / "answers"
        self.synthesis = root / "synthesis"
        self.prefect = root / "prefect"
        self._bases = root / "bases"
        for folder in (self.store.root, self.channel, self.artifacts, self.prefect, self._bases):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FactoryError(f"{folder}: {error.strerror}; name another folder with --home") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for one writing command.

        Raises:
            FactoryError: another process holds it; its id is named.
        """
        holder = self.root / "lock.pid"
        lock = FileLock(self.root / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            pid = (holder.read_text("utf-8") if holder.is_file() else "") or "?"
            raise FactoryError(f"{self.root} is in use by process {pid}; wait for it, or use another --home") from None
        try:
            holder.write_text(str(os.getpid()), "utf-8")
            yield
        finally:
            lock.release()

    def base_folder(self, digest: str) -> Path:
        """Where the base model with this digest lies, present or not."""
        return self._bases / digest

    def known_bases(self) -> list[KnownBase]:
        """Every base model that was fetched, oldest first."""
        path = self._bases / "known.json"
        return [KnownBase(**entry) for entry in json.loads(path.read_text("utf-8"))] if path.is_file() else []

    def add_base(self, source: str, fetch: Callable[[Path], str]) -> KnownBase:
        """Fetch a base model with `fetch(folder) -> digest of its content` and keep it under that digest."""
        making = Path(tempfile.mkdtemp(dir=self._bases, prefix="fetching-"))
        try:
            digest = fetch(making)
            if not self.base_folder(digest).exists():
                making.rename(self.base_folder(digest))
        finally:
            shutil.rmtree(making, ignore_errors=True)
        known = [base for base in self.known_bases() if base.source != source]
        known.append(KnownBase(source, digest, time.time()))
        write_atomically(self._bases / "known.json", canonical_json([asdict(base) for base in known]))
        return known[-1]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
