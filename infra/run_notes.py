"""What runs leave for the plan: how long each stage took last, and what stopped a subject. One small JSON file.

Nothing depends on it but estimates and hints: a lost file costs those and no more. Runs hold the workspace, so there is
one writer.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.canonical import canonical_json
from infra.workspace import write_atomically


class RunNotes:
    """Notes by subject (a feature, or the base release) of the workspace in `root`."""

    def __init__(self, root: Path) -> None:
        self._path = root / "runs.json"

    def seconds(self) -> dict[str, dict[str, float]]:
        """By subject, how long each stage took when it was last built."""
        return {subject: noted.get("seconds", {}) for subject, noted in self._read().items()}

    def stops(self) -> dict[str, tuple[str, str]]:
        """By subject that was stopped when it was last run: the key of its inputs, and the error."""
        stops = {name: noted["stop"] for name, noted in self._read().items() if "stop" in noted}
        return {name: (stop["key"], stop["error"]) for name, stop in stops.items()}

    def took(self, subject: str, stage: str, seconds: float) -> None:
        """Note how long a stage of a subject took."""
        noted = self._read()
        noted.setdefault(subject, {}).setdefault("seconds", {})[stage] = round(seconds, 3)
        self._write(noted)

    def stopped(self, subject: str, key: str, error: str) -> None:
        """Note what stopped a run of a subject with these inputs."""
        noted = self._read()
        noted.setdefault(subject, {})["stop"] = {"key": key, "error": error}
        self._write(noted)

    def went_on(self, subject: str) -> None:
        """Note that a run of a subject was not stopped."""
        noted = self._read()
        if noted.get(subject, {}).pop("stop", None):
            self._write(noted)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return dict(json.loads(self._path.read_text("utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self, noted: Mapping[str, Mapping[str, Any]]) -> None:
        write_atomically(self._path, canonical_json(noted))
