"""Where a channel is published to: what every store can do, and the store that is a folder.

Files come in two kinds. Immutable ones, by far the most, have names that no other content gets. The one that moves is
written on condition that it is still what the writer has read, so of two publishers one learns that it was late.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from infra.canonical import digest_file
from infra.errors import FactoryError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class Found:
    """A file's content, and a tag that changes with it."""

    content: bytes
    tag: str


@dataclass(frozen=True)
class Stored:
    """A file that lies in a store: its key, its size, and when it was written."""

    key: str
    bytes: int
    written: datetime


class Store(Protocol):
    """A place that a channel is published to. Keys are relative paths with `/`. Methods raise FactoryError for what the
    place refuses, in one line."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        ...

    def read(self, key: str) -> Found | None:
        """A file, or None if there is none."""
        ...

    def put(self, key: str, content: bytes, tag: str | None) -> bool:
        """Write a file, whole or not at all, if it still has the tag (None: if there is none); says whether it did."""
        ...

    def add_file(self, key: str, source: Path, sha256: str) -> bool:
        """Copy a file whose name carries its content, unless it is there already, and whole; says whether it did."""
        ...

    def digest(self, key: str) -> str | None:
        """SHA-256 of a file's content, read as it lies there; None if there is none."""
        ...

    def files(self) -> Iterator[Stored]:
        """Everything that lies there under a key, in no order."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file; one that is gone already is no error."""
        ...


class FolderStore:
    """A channel in a folder, on this machine or mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._root)

    def read(self, key: str) -> Found | None:
        """See `Store`."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _no(self._path(key), error) from None
        return Found(content, hashlib.sha256(content).hexdigest())

    def put(self, key: str, content: bytes, tag: str | None) -> bool:
        """See `Store`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._root / ".lock"):
                present = self.read(key)
                if (present.tag if present else None) != tag:
                    return False
                with _appearing(path) as making:
                    making.write_bytes(content)
        except OSError as error:
            raise _no(path, error) from None
        return True

    def add_file(self, key: str, source: Path, sha256: str) -> bool:
        """See `Store`."""
        path = self._path(key)
        if path.is_file() and path.stat().st_size == source.stat().st_size and digest_file(path) == sha256:
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _appearing(path) as making:
                shutil.copyfile(source, making)
                if digest_file(making) != sha256:
                    raise FactoryError(f"{source}: changed while it was published; run again")
        except OSError as error:
            raise _no(path, error) from None
        return True

    def digest(self, key: str) -> str | None:
        """See `Store`."""
        path = self._path(key)
        try:
            return digest_file(path) if path.is_file() else None
        except OSError as error:
            raise _no(path, error) from None

    def files(self) -> Iterator[Stored]:
        """See `Store`. What a killed writer left half-made has no key, and is left out."""
        for path in self._root.rglob("*"):
            key = path.relative_to(self._root).as_posix()
            if _KEY.fullmatch(key) and path.is_file():
                found = path.stat()
                yield Stored(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def remove(self, key: str) -> None:
        """See `Store`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise _no(self._path(key), error) from None

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)


def checked_key(key: str) -> str:
    """The key, if it stays in its store.

    Raises:
        FactoryError: it does not.
    """
    if not _KEY.fullmatch(key):
        raise FactoryError(f"{key!r} is no name for a file of a channel")
    return key


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends, on the disk before it has its name."""
    making = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        yield making
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def _no(path: Path, error: OSError) -> FactoryError:
    return FactoryError(f"{path}: {error.strerror or error}; the channel must be a folder that can be written to")
