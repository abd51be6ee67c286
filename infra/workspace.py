"""The workspace: one folder that holds everything a factory knows, unless settings name a server for it."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.canonical import canonical_json
from infra.errors import FactoryError, Unavailable
from infra.locks import Held, held, is_held
from infra.store import Store

# How long a process waits for another that writes a small file.
_WAIT_SECONDS = 60.0
_LEAST_MB = 20.0


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
        self.downloads = root / "downloads"
        self.synthesis = root / "synthesis"
        self.prefect = root / "prefect"
        self._bases = root / "bases"
        self._whole = root / "lock"
        for folder in (self.store.root, self.channel, self.artifacts, self.prefect, self._bases):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FactoryError(f"{folder}: {error.strerror}; name another folder with --home") from None

    @contextmanager
    def lock(self, part: str = "", seconds: float = 0.0) -> Iterator[None]:
        """Hold the workspace alone, or one `part` of it while other processes hold other parts.

        A part is what two processes must not do at once: a feature's rebuild, the base's, the decisions, the data.

        Raises:
            Unavailable: another process holds it and did not let go within `seconds`; its id is named.
        """
        mine = self._part(part) if part else self._whole
        with ExitStack() as stack:
            try:
                stack.enter_context(held(self._whole, shared=bool(part), seconds=seconds))
                if part:
                    stack.enter_context(held(mine, seconds=seconds))
            except Held:
                what = f"{self.root}: {part}" if part else str(self.root)
                raise Unavailable(
                    f"{what} is in use by process {self._holders(mine)}; wait for it, or use another --home"
                ) from None
            _pid_file(mine).write_text(str(os.getpid()), "utf-8")
            yield

    def holds(self, part: str) -> bool:
        """Whether some process holds a part now."""
        return is_held(self._part(part))

    def _part(self, part: str) -> Path:
        return self.root / "locks" / part

    def _holders(self, wanted: Path) -> str:
        """The processes that hold a lock that could not be had: of a part, else of any part, else of the whole."""
        locks = [wanted] if wanted != self._whole and is_held(wanted) else []
        locks = (
            locks
            or [path for path in self._part("").glob("*") if path.suffix != ".pid" and is_held(path)]
            or [self._whole]
        )
        files = (_pid_file(path) for path in locks)
        return ", ".join(sorted({file.read_text("utf-8") for file in files if file.is_file()})) or "?"

    def require_room(self) -> None:
        """Before servers are started and databases written.

        Raises:
            Unavailable: the disk is all but full.
        """
        free = shutil.disk_usage(self.root).free / 1e6
        if free < _LEAST_MB:
            raise Unavailable(
                f"{self.root}: disk is full ({free:.0f} MB left); make room and run again, finished parts are kept"
            )

    def base_folder(self, digest: str) -> Path:
        """Where the base model with this digest lies, present or not."""
        return self._bases / digest

    def known_bases(self) -> list[KnownBase]:
        """Every base model that was fetched, oldest first."""
        path = self._bases / "known.json"
        return [KnownBase(**entry) for entry in json.loads(path.read_text("utf-8"))] if path.is_file() else []

    def half_fetched(self) -> list[Path]:
        """Base models whose download was killed, or is under way."""
        return sorted(self._bases.glob("fetching-*/"))

    def add_base(self, source: str, fetch: Callable[[Path], str]) -> KnownBase:
        """Fetch a base model with `fetch(folder) -> digest of its content` and keep it under that digest."""
        making = Path(tempfile.mkdtemp(dir=self._bases, prefix="fetching-"))
        try:
            digest = fetch(making)
            if not self.base_folder(digest).exists():
                making.rename(self.base_folder(digest))
        finally:
            shutil.rmtree(making, ignore_errors=True)
        with held(self._part("bases"), seconds=_WAIT_SECONDS):
            known = [base for base in self.known_bases() if base.source != source]
            known.append(KnownBase(source, digest, time.time()))
            write_atomically(self._bases / "known.json", canonical_json([asdict(base) for base in known]))
        return known[-1]


def in_use(folder: Path) -> Path:
    """The folder, marked as used now if it is there: `factory gc` goes by that."""
    if folder.is_dir():
        os.utime(folder)
    return folder


def _pid_file(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.pid")


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
