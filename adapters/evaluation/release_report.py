"""The page of a base release: its gates, bits per weight, distance to full precision, and what is in the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.evaluation.figures import draw_training
from adapters.evaluation.gates import GateReport
from adapters.evaluation.pages import embedded, render, step_log, summary, training_facts

# What a reader looks for first; a figure is placed by the first of these that its name starts with.
_FIRST = ("bpw_linear", "bpw_all", "kl", "perplexity", "psnr", "argmax")


def write_release_report(
    report: GateReport, release: Mapping[str, Any], output: Path, recovery_steps: Path | None = None
) -> None:
    """Write `release.html` (and the recovery's curve, `figures/training.png`) into the folder `output`.

    `release` is the content of `release.json`: its texts and numbers are shown as they are, mappings as tables.
    `recovery_steps` is the step log of the recovery adapter's training.
    """
    steps = step_log(recovery_steps)
    if steps:
        draw_training(steps, output / "figures")
    rest = {name: value for name, value in release.items() if name not in ("gates", "figures")}
    page = {
        "report": report,
        "figures": {name: report.figures[name] for name in sorted(report.figures, key=_place)},
        "training": training_facts(steps),
        "curve": embedded(output / "figures", "training") if steps else None,
        "texts": {name: value for name, value in rest.items() if isinstance(value, str)},
        "manifest": summary("Manifest", rest),
    }
    (output / "release.html").write_text(render("release.html", page), "utf-8")


def _place(name: str) -> tuple[int, str]:
    return next((place for place, prefix in enumerate(_FIRST) if name.startswith(prefix)), len(_FIRST)), name
