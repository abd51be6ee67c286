"""The content-addressed store: a stage's output lies under the key of what it was made from.

Notable choices:
- A stage is built into a folder beside its final place and renamed when whole, so a killed run leaves nothing
  half-made; what the stage wants to keep across a kill (finished documents, checkpoints) goes to its scratch folder.
- The content's digest is written with the output and checked on every later use: a damaged entry is moved aside
  and built again.
- One process at a time builds a key; another that wants it waits and takes what the first has made. Two stages of
  the same key would share their scratch folder.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from infra.canonical import canonical_json, digest, digest_folder
from infra.errors import Unavailable, disk_full


@dataclass(frozen=True)
class Stage:
    """A step whose output is decided by its inputs.

    `inputs` maps names to keys, digests or plain JSON values, all readable without running anything.
    `build(output, scratch)` fills the empty folder `output`; `scratch` outlives a killed build of the same key.
    """

    name: str
    inputs: Mapping[str, object]
    build: Callable[[Path, Path], None]

    @property
    def key(self) -> str:
        """SHA-256 over the stage's name and inputs."""
        return digest({"stage": self.name, "inputs": dict(self.inputs)})


@dataclass(frozen=True)
class Built:
    """A stage's finished output: its folder, key, content digest, and what it cost (0 s if it was there)."""

    path: Path
    key: str
    digest: str
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Entry:
    """One finished output as it lies in the store: its folder, what it was made from, and when (seconds since 1970)."""

    stage: str
    key: str
    folder: Path
    inputs: Mapping[str, object]
    created: float

    @property
    def megabytes(self) -> float:
        """Size on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / 1e6


class Store:
    """A folder `root/<stage>/<key>/` per output, with `stage.json` beside the content in `output/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, name: str, key: str) -> Path:
        """The folder of one entry, present or not."""
        return self.root / name / key

    def find(self, name: str, key: str) -> Built | None:
        """The entry if it is there and its content still has its digest; a damaged one is moved aside."""
        entry = self.entry(name, key)
        if not entry.exists():
            return None
        try:
            recorded = str(json.loads((entry / "stage.json").read_text("utf-8"))["digest"])
            sound = digest_folder(entry / "output") == recorded
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            sound = False
        if sound:
            return Built(entry / "output", key, recorded, 0.0, reused=True)
        with contextlib.suppress(FileNotFoundError):  # another process has moved it already
            entry.rename(entry.with_name(f"{key}.damaged-{time.time_ns()}"))
        return None

    def build(self, stage: Stage) -> Built:
        """Return the stage's output, making it only if it is not there.

        Raises whatever `stage.build` raises; the store is then as it was, but for the stage's scratch folder.

        Raises:
            Unavailable: the disk is full.
        """
        making = self.root / "making" / f"{stage.name}-{stage.key}"
        making.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{making}.lock"):
            found = self.find(stage.name, stage.key)
            if found is not None:
                return found
            try:
                return self._build(stage, making)
            except OSError as error:
                said = disk_full(error)
                if said is None:
                    raise
                raise Unavailable(
                    f"{self.root}: {said} while {stage.name} was built; make room and run again, "
                    "finished parts are kept"
                ) from error
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def _build(self, stage: Stage, making: Path) -> Built:
        entry = self.entry(stage.name, stage.key)
        scratch = self.root / "scratch" / f"{stage.name}-{stage.key}"
        shutil.rmtree(making, ignore_errors=True)  # what a killed run left
        output = making / "output"
        output.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        stage.build(output, scratch)
        seconds = time.monotonic() - started
        content = digest_folder(output)
        manifest = {
            "stage": stage.name,
            "key": stage.key,
            "inputs": dict(stage.inputs),
            "digest": content,
            "seconds": round(seconds, 3),
            "created": time.time(),
        }
        (making / "stage.json").write_bytes(canonical_json(manifest))
        entry.parent.mkdir(parents=True, exist_ok=True)
        making.rename(entry)
        shutil.rmtree(scratch, ignore_errors=True)
        return Built(entry / "output", stage.key, content, seconds, reused=False)

    def seconds(self, name: str, key: str) -> float | None:
        """How long the entry took to build, or None if it is not there."""
        manifest = self.entry(name, key) / "stage.json"
        return float(json.loads(manifest.read_text("utf-8"))["seconds"]) if manifest.is_file() else None

    def entries(self) -> Iterator[Entry]:
        """All finished outputs; what is being made, or was moved aside as damaged, is none."""
        for folder in self._folders():
            content = _manifest(folder)
            if content is not None and folder.name == content["key"]:
                yield Entry(content["stage"], content["key"], folder, content["inputs"], content["created"])

    def leftovers(self) -> Iterator[Path]:
        """Folders that are no output: what was moved aside as damaged, and what a killed build left half-made."""
        for folder in self._folders():
            content = _manifest(folder)
            if content is None or folder.name != content["key"]:
                yield folder
        for making in sorted((self.root / "making").glob("*/")):
            lock = FileLock(f"{making}.lock")
            with contextlib.suppress(Timeout), lock.acquire(timeout=0):
                if making.exists():
                    yield making

    def scratch_folders(self) -> list[Path]:
        """What builds that did not end have kept for the next try."""
        return sorted((self.root / "scratch").glob("*/"))

    def _folders(self) -> list[Path]:
        return [path for path in sorted(self.root.glob("*/*/")) if path.parent.name not in ("making", "scratch")]

    def remove(self, entry: Entry) -> None:
        """Remove an output, unless a process builds its key just now; a reader never sees a part of it."""
        making = self.root / "making" / f"{entry.stage}-{entry.key}"
        making.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{making}.lock"):
            shutil.rmtree(making, ignore_errors=True)
            entry.folder.rename(making)
            shutil.rmtree(making)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """What `stage.json` says, None if it is not there or says less than it should."""
    try:
        content = json.loads((folder / "stage.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    wanted = ("stage", "key", "inputs", "created")
    return content if isinstance(content, dict) and all(name in content for name in wanted) else None
