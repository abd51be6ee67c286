"""The content-addressed store: a stage's output lies under the key of what it was made from.

Notable choices:
- A stage is built into a folder beside its final place and renamed when whole, so a killed run leaves nothing
  half-made; what the stage wants to keep across a kill (finished documents, checkpoints) goes to its scratch folder.
- The content's digest is written with the output and checked on every later use: a damaged entry is moved aside
  and built again.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.canonical import canonical_json, digest, digest_folder


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
        manifest = entry / "stage.json"
        if not manifest.is_file():
            return None
        recorded = json.loads(manifest.read_text("utf-8"))["digest"]
        if digest_folder(entry / "output") != recorded:
            entry.rename(entry.with_name(f"{key}.damaged-{time.time_ns()}"))
            return None
        return Built(entry / "output", key, recorded, 0.0, reused=True)

    def build(self, stage: Stage) -> Built:
        """Return the stage's output, making it only if it is not there.

        Raises whatever `stage.build` raises; the store is then as it was, but for the stage's scratch folder.
        """
        found = self.find(stage.name, stage.key)
        if found is not None:
            return found
        entry = self.entry(stage.name, stage.key)
        scratch = self.root / "scratch" / f"{stage.name}-{stage.key}"
        making = self.root / "making" / f"{stage.name}-{stage.key}-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        output = making / "output"
        output.mkdir(parents=True)
        scratch.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
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
            try:
                making.rename(entry)
            except OSError:
                # Another process finished the same key first; its output is as good as ours.
                if self.find(stage.name, stage.key) is None:
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
        return Built(entry / "output", stage.key, content, seconds, reused=False)

    def seconds(self, name: str, key: str) -> float | None:
        """How long the entry took to build, or None if it is not there."""
        manifest = self.entry(name, key) / "stage.json"
        return float(json.loads(manifest.read_text("utf-8"))["seconds"]) if manifest.is_file() else None
