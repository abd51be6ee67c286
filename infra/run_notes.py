"""What runs leave for the plan: how long each stage took last, and what stopped a subject. One small JSON file.

Nothing depends on it but estimates and hints: a lost file costs those and no more.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.canonical import canonical_json
from infra.locks import held
from infra.workspace import write_atomically

_WAIT_SECONDS = 60.0


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
        with self._change() as noted:
            noted.setdefault(subject, {}).setdefault("seconds", {})[stage] = round(seconds, 3)

    def stopped(self, subject: str, key: str, error: str) -> None:
        """Note what stopped a run of a subject with these inputs."""
        with self._change() as noted:
            noted.setdefault(subject, {})["stop"] = {"key": key, "error": error}

    def went_on(self, subject: str) -> None:
        """Note that a run of a subject was not stopped."""
        if "stop" in self._read().get(subject, {}):
            with self._change() as noted:
                noted.get(subject, {}).pop("stop", None)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            return dict(json.loads(self._path.read_text("utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    @contextmanager
    def _change(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The notes for a block that changes them; one process at a time, as features may be run side by side."""
        with held(self._path.with_suffix(".lock"), seconds=_WAIT_SECONDS):
            noted = self._read()
            yield noted
            write_atomically(self._path, canonical_json(noted))
