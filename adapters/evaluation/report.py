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
from adapters.evaluation.interval import Interval
from adapters.evaluation.pages import embedded, render, step_log, summary, training_facts

METRICS = {
    "rouge_l": "ROUGE-L", "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "sari": "SARI", "gleu": "GLEU",
    "edit_f05": "edit F0.5",
    "macro_f1": "Macro-F1", "error_cost": "cost of errors", "brier": "Brier score",
    "calibration_error": "calibration error",
    "copied": "copied from the input", "length": "length over the reference's", "meaning_kept": "meaning kept",
    "empty": "empty answers", "refused": "refusals",
}  # fmt: skip
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
    metric = scores["metric"]
    values: dict[str, Any] = {
        name: scores["systems"][name]["values"] for name in reversed(NAMES) if name in scores["systems"]
    }
    counts = scores["systems"]["candidate"]["counts"]
    steps = step_log(background.training)
    groups = {**{name: name for name in counts}, **({_WHOLE: ""} if len(counts) > 1 else {})}
    by_group = {name: {group: of[metric][part] for group, part in groups.items()} for name, of in values.items()}
    intervals = {
        group: {other: _difference(report, prefix, part) for prefix, other in _opponents(report, scores).items()}
        for group, part in groups.items()
    }
    draw_scores(by_group, intervals, METRICS[metric], folder / "figures")
    if steps:
        draw_training(steps, folder / "figures")
    total = sum(counts.values())
    written = [name for name in values if name not in scores["trivial"]]
    page = {
        "subject": report.subject,
        "description": background.description,
        "report": report,
        "metric": METRICS[metric],
        "names": NAMES,
        "metrics": METRICS,
        "systems": list(values),
        "written": written,
        "trivial": scores["trivial"],
        "candidate": values["candidate"][metric][""],
        "whole": _difference(report, "", ""),
        "count": total,
        "rows": [
            {
                "name": group,
                "whole": group == _WHOLE,
                "count": counts.get(group, total),
                "scores": {name: by_group[name][group] for name in values},
            }
            for group in groups
        ],
        "beside": {
            name: {system: of[name][""] for system, of in values.items() if name in of}
            for name in values["candidate"]
            if name != metric
        },
        "comparisons": _comparisons(report, scores, groups),
        "probabilities": metric != "macro_f1" or "brier" in values["candidate"],
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


def _opponents(report: GateReport, scores: Mapping[str, Any]) -> dict[str, str]:
    """Whom the candidate was compared with, by the prefix of the figures that tell of it."""
    metric, systems = scores["metric"], scores["systems"]
    best = max(scores["trivial"], key=lambda name: systems[name]["values"][metric][""], default=None)
    known = {"": "baseline", "production_": "production", "trivial_": best}
    return {prefix: other for prefix, other in known.items() if other and f"{prefix}difference" in report.figures}


def _difference(report: GateReport, prefix: str, part: str) -> Interval:
    suffix = f"/{part}" if part else ""
    return Interval(*(report.figures[f"{prefix}difference{bound}{suffix}"] for bound in ("", "_low", "_high")))


def _comparisons(report: GateReport, scores: Mapping[str, Any], groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row per opponent and group: the difference, its p-value by Holm, and what such a test can see."""
    rows = []
    for prefix, other in _opponents(report, scores).items():
        for group, part in groups.items():
            suffix = f"/{part}" if part else ""
            p, detectable = (report.figures[f"{prefix}difference_{name}{suffix}"] for name in ("p", "detectable"))
            difference = _difference(report, prefix, part)
            rows.append({"other": other, "group": group, "difference": difference, "p": p, "detectable": detectable})
    return rows


def _gain(sample: Mapping[str, Any]) -> tuple[float, str]:
    return sample["scores"]["candidate"] - sample["scores"]["baseline"], sample["id"]
