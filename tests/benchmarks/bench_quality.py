"""The shipped quality model, trained again, and what it makes of real texts of kinds that it never saw.

Good texts are those of `shared/data`; bad ones are the same texts, damaged in ways that it was not trained on. Figures:
the mean AUC over the kinds of damage, and the shares of good and of damaged texts that thresholds of 0.5 and 0.05
keep.
"""

import random
import statistics
from pathlib import Path

import adapters.features
from adapters.data.quality import QualityModel, load_quality
from adapters.data.train_quality import TESTED_ON, quality_scores, train_quality
from adapters.records import read_records
from tests.benchmarks.common import Figure
from tests.benchmarks.texts import rows

_TEXTS = 300
_FEWEST_WORDS = 8


def run() -> list[Figure]:
    """Figures by kind of text, and the largest difference between the shipped model's weights and new ones."""
    folder = Path(*adapters.features.__path__)
    shipped = [record.input for path in sorted(folder.glob("*/corpus/*.jsonl")) for record in read_records(path)[0]]
    model = load_quality()
    again, _ = train_quality(shipped)
    figures = [Figure("weights_differ_by", "", float(abs(again.weights - model.weights).max()))]
    for name, texts in real_texts().items():
        figures += _figures(name, model, texts)
    return figures


def real_texts() -> dict[str, list[str]]:
    """Real texts by kind."""
    kinds = {
        "chat": [row["dialogue"] for row in rows("summarization/messages.train.jsonl")],
        "encyclopedia": [row["text"] for row in rows("writing/concise.train.jsonl")],
        "learners": [row["text"] for row in rows("writing/proofread.train.jsonl")],
        "mail": [mail["text"] for row in rows("summarization/email_threads.val.jsonl") for mail in row["messages"]],
    }
    return {
        name: [text for text in texts if len(text.split()) >= _FEWEST_WORDS][:_TEXTS] for name, texts in kinds.items()
    }


def _figures(name: str, model: QualityModel, texts: list[str]) -> list[Figure]:
    aucs = quality_scores(model, texts, seed=1)["auc_new_damage"]
    assert isinstance(aucs, dict)
    chance = random.Random(2)
    good = [model.score(text) for text in texts]
    bad = [model.score(damage(text, chance)) for damage in TESTED_ON for text in texts[: _TEXTS // len(TESTED_ON)]]
    figures = [Figure(f"auc_{name}", "AUC", statistics.mean(aucs.values()))]
    for side, scores in (("kept", good), ("damaged_kept", bad)):
        for threshold in (0.5, 0.05):
            share = sum(score >= threshold for score in scores) / len(scores)
            figures.append(Figure(f"{side}_{name}_at_{threshold:g}", "share", share))
    return figures
