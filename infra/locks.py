"""Locks between processes that see one folder: whole or shared, let go by the system when their process dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import Unavailable

_LOOK_SECONDS = 0.1


class Held(Unavailable):
    """Somebody else holds the lock, and did not let go in time."""


@contextmanager
def held(path: Path, shared: bool = False, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file, which is made and stays; others who hold it `shared` may hold it at the same time.

    Raises:
        Held: it could not be had within `seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while not _take(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise Held(f"{path}: held by another process for {seconds:.0f} s; wait for it, or end that one")
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some process holds the lock now."""
    try:
        with held(path):
            return False
    except Held:
        return True


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
