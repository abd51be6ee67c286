"""The page about a feature's data: what came in, what cleaning did to it, with examples, and what is left."""

import json
from pathlib import Path
from typing import Any

from adapters.evaluation.pages import render

_QUARANTINED = 20
_PROOFS = 20
# What a step is about, for people.
_STEPS = {
    "encoding": "Characters that were decoded wrongly are repaired, control characters dropped.",
    "personal": "Mail and web addresses, numbers of phones, cards, accounts and persons become placeholders.",
    "language": "Records in languages that the recipe does not ask for go.",
    "profanity": "Records with profane words go.",
    "quality": "Records whose input scores below the recipe's threshold go.",
    "exact_duplicates": "Of equal inputs of one use case, white space and case aside, the first sound one stays.",
    "near_duplicates": "Of inputs that are nearly the same, the first one stays.",
    "evaluation_sets": "What shares an n-gram with an evaluation set is not trained on.",
    "held_out": "What shares an n-gram with a training record is not tested on.",
}


def write_data_report(folder: Path) -> None:
    """Write `data.html` into a folder that `data.prepare` filled."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    with (folder / "quarantine.jsonl").open(encoding="utf-8") as file:
        quarantine = [json.loads(line) for _, line in zip(range(_QUARANTINED), file, strict=False)]
    page = {
        "report": report,
        "kept": sum(sum(sides.values()) for sides in report["use_cases"].values()),
        "about": _STEPS,
        "quarantine": quarantine,
        "proofs": report["contamination"]["proofs"][:_PROOFS],
    }
    (folder / "data.html").write_text(render("data.html", page), "utf-8")
