"""What benchmarks share: figures against a peer, cost in CPU-seconds, and the JSON that `factory bench` prints."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.records import Record, read_records
from infra.settings import load_settings
from infra.sources import fetch_base
from infra.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Figure:
    """One measured number. `ratio` > 1: ours is better; `peer` and `ratio` are None where there is no peer."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None


def against(
    name: str, unit: str, ours: Sequence[float], peer: Sequence[float], higher_is_better: bool = True
) -> Figure:
    """A figure from the medians of runs of both sides."""
    our, their = statistics.median(ours), statistics.median(peer)
    return Figure(name, unit, our, their, our / their if higher_is_better else their / our)


def per_cpu_second(work: Callable[[], int]) -> float:
    """Units that `work` returns, per CPU-second of this process (all threads): other load counts less."""
    started = time.process_time()
    done = work()
    return done / (time.process_time() - started)


def base_folder() -> Path:
    """The settings' base model (`FACTORY_BASE`), from the workspace (`FACTORY_HOME`), fetched if need be."""
    settings = load_settings()
    workspace = Workspace(settings.home.expanduser().resolve())
    fetched = {known.source: known.digest for known in workspace.known_bases()}
    if settings.base not in fetched:
        known = workspace.add_base(settings.base, lambda folder: fetch_base(settings.base, folder).digest)
        return workspace.base_folder(known.digest)
    return workspace.base_folder(fetched[settings.base])


def dialogues(count: int) -> list[Record]:
    """The first chats of our own summarization corpus that have a summary."""
    records, _ = read_records(ROOT / "adapters" / "features" / "summarization" / "corpus" / "messages.jsonl")
    return [record for record in records if record.targets][:count]


def report(name: str, figures: Sequence[Figure]) -> dict[str, Any]:
    """The result of one benchmark in the form that `factory bench NAME --json` prints."""
    rows = [asdict(figure) for figure in figures]
    for row in rows:
        for key in ("ours", "peer", "ratio"):
            row[key] = None if row[key] is None else float(f"{row[key]:.4g}")
    return {"bench": name, "commit": _commit(), "machine": _machine(), "figures": rows}


def _commit() -> str:
    """The checkout's commit, marked if files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
