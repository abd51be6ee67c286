"""The page that a person reads before promoting: `report.html`, whole in itself, with its pictures beside it.

It holds no time and no path, so equal evaluations give equal pages.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.evaluation.figures import NAMES, draw_scores, draw_training
from adapters.evaluation.gates import GateReport
from adapters.evaluation.pages import embedded, render, step_log, summary, training_facts
from adapters.evaluation.statistics import Interval

METRICS = {"rouge_l": "ROUGE-L", "sari": "SARI", "macro_f1": "Macro-F1"}
RANDOM_SAMPLES, WORST_SAMPLES = 20, 10
_WHOLE = "all use cases"


@dataclass(frozen=True)
class Background:
    """What else the page tells, each part left out where it is absent.

    `training`: the trainer's `training.json`, a list of steps with `loss`, `tokens`, `seconds` (or a mapping whose
    `steps` is that list). `data`, `synthesis`: reports of those stages, whose numbers and counts by name are shown.
    """

    description: str = ""
    training: Path | None = None
    data: Path | None = None
    synthesis: Path | None = None
    lineage: Mapping[str, str] = field(default_factory=dict)


def write_report(folder: Path, background: Background) -> None:
    """Draw `figures/*.png` and write `report.html` into a folder that `evaluate.write_evaluation` filled."""
    report = GateReport.from_json((folder / "gates.json").read_text("utf-8"))
    scores = json.loads((folder / "scores.json").read_text("utf-8"))
    with (folder / "samples.jsonl").open(encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    systems: dict[str, Any] = {name: scores["systems"][name] for name in reversed(NAMES) if name in scores["systems"]}
    counts = systems["candidate"]["counts"]
    steps = step_log(background.training)
    by_group = {
        name: {**of["use_cases"], **({_WHOLE: of["overall"]} if len(counts) > 1 else {})}
        for name, of in systems.items()
    }
    groups = list(by_group["candidate"])
    draw_scores(
        by_group, {group: _difference(report, group) for group in groups}, METRICS[scores["metric"]], folder / "figures"
    )
    if steps:
        draw_training([step["step"] for step in steps], [step["loss"] for step in steps], folder / "figures")
    total = sum(counts.values())
    empty = {name: of["empty"] for name, of in systems.items()}
    page = {
        "subject": report.subject,
        "description": background.description,
        "report": report,
        "metric": METRICS[scores["metric"]],
        "labelled": scores["metric"] == "macro_f1",
        "names": NAMES,
        "systems": list(systems),
        "candidate": systems["candidate"]["overall"],
        "whole": _difference(report, _WHOLE),
        "count": total,
        "rows": [
            {
                "name": group,
                "whole": group == _WHOLE,
                "count": counts.get(group, total),
                "scores": {name: by_group[name][group] for name in systems},
            }
            for group in groups
        ],
        "empty": empty if any(empty.values()) else {},
        "training": training_facts(steps),
        "summaries": [
            summary(title, json.loads(path.read_text("utf-8")))
            for title, path in (("Data", background.data), ("Synthesis", background.synthesis))
            if path is not None
        ],
        "lineage": dict(background.lineage),
        "random": random.Random(report.subject).sample(samples, min(RANDOM_SAMPLES, len(samples))),
        "worst": sorted(samples, key=_gain)[:WORST_SAMPLES],
        "images": {name: embedded(folder / "figures", name) for name in ("scores", *(["training"] if steps else []))},
    }
    (folder / "report.html").write_text(render("report.html", page), "utf-8")


def _difference(report: GateReport, group: str) -> Interval:
    suffix = "" if group == _WHOLE else f"/{group}"
    figures = report.figures
    return Interval(*(figures[f"difference{part}{suffix}"] for part in ("", "_low", "_high")))


def _gain(sample: Mapping[str, Any]) -> tuple[float, str]:
    return sample["scores"]["candidate"] - sample["scores"]["baseline"], sample["id"]
