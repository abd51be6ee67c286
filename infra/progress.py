"""Progress with time left, for everything that takes more than two seconds.

On a terminal it is a live bar; elsewhere (CI, a log file) one line every ten seconds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LOG_EVERY_SECONDS = 10.0
console = Console(stderr=True)


class Step:
    """Handle to report progress on one piece of work."""

    def __init__(self, label: str, total: float, bar: Progress | None) -> None:
        self._label = label
        self._total = total
        self._bar = bar
        self._task = bar.add_task(label, total=total, note="") if bar else None
        self._done = 0.0
        self._started = self._logged = time.monotonic()

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Count `amount` more units as done; `note` (loss, counts) is shown beside the bar."""
        self._done += amount
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=amount, note=note)
            return
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_SECONDS and self._done > 0:
            self._logged = now
            left = (now - self._started) * max(self._total - self._done, 0) / self._done
            console.print(
                f"  {self._label}: {self._done:.0f}/{self._total:.0f}, {left:.0f} s left {note}",
                highlight=False,
                markup=False,  # notes and labels are data: a bracket in them is a bracket
            )

    def reach(self, done: float, note: str = "") -> None:
        """Count all units up to `done` as done; for work that goes on where another process stopped."""
        self.advance(done - self._done, note)


@contextmanager
def track(label: str, total: float) -> Iterator[Step]:
    """Show progress of `total` units of work under `label` while the block runs."""
    if console.is_terminal:
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            yield Step(label, total, bar)
    else:
        yield Step(label, total, None)
