"""What an evaluation is worth: broken candidates stopped, sound ones passed, false alarms, and what it costs.

Answers are simulated over the shipped corpora, and scores swapped between two systems of a real evaluation: no model.
"""

import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

from adapters.evaluation.comparison import Comparisons
from adapters.evaluation.evaluate import write_evaluation
from adapters.records import write_records
from tests.adapters.broken import NAMES, base, case, half_corrupted, other_feature, refusing, report_on, shuffled, sound
from tests.adapters.evaluation_cases import write_texts
from tests.adapters.unchanged import stored, unchanged
from tests.benchmarks.common import Figure

BROKEN = (shuffled, other_feature, half_corrupted, refusing)
RETRAININGS = 10
UNCHANGED = 200
ROUNDS = 3


def run() -> list[Figure]:
    """Shares over the three features, and seconds for one evaluation of stored answers."""
    stopped = [not report_on(name, broken).passed for name, broken in product(NAMES, BROKEN)]
    passed = [report_on(name, sound, seed).passed for name, seed in product(NAMES, range(1, RETRAININGS + 1))]
    alarms = [alarm for name in NAMES for alarm in _alarms(name)]
    seconds = median(_seconds() for _ in range(ROUNDS))
    return [
        Figure("broken_candidates_stopped", "share", sum(stopped) / len(stopped)),
        Figure("retrainings_passed", "share", sum(passed) / len(passed)),
        Figure("false_alarms_at_5_percent", "share", sum(alarms) / len(alarms)),
        Figure("seconds_to_evaluate_again", "s", seconds),
    ]


def _alarms(name: str) -> list[bool]:
    """Whether any use case differs significantly, by Holm, between systems that do not differ."""
    chosen, one, other = stored(name)
    comparisons = Comparisons(chosen)
    tests = (comparisons.differences(*unchanged(chosen, one, other, seed), one.metric) for seed in range(UNCHANGED))
    return [any(part and found.adjusted < 0.05 for part, found in test.items()) for test in tests]


def _seconds() -> float:
    """One evaluation of stored answers, summarization, four systems and the trivial ones."""
    plan, chosen = case("summarization")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_records(folder / "held_out.jsonl", chosen)
        answers = {"baseline": base, "full_precision": base, "production": sound, "candidate": sound}
        systems = {
            name: write_texts(folder / name, chosen, say(plan, chosen, seed))
            for seed, (name, say) in enumerate(answers.items())
        }
        started = time.process_time()
        write_evaluation(plan, folder / "held_out.jsonl", systems, {"adapter_mb": 9.8}, folder)
        return time.process_time() - started
