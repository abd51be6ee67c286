"""Target style: learnt from training records by use case, and absent where there are few."""

import random
from pathlib import Path

import pytest

from adapters.evaluation.evaluate import write_evaluation
from adapters.evaluation.items import items
from adapters.evaluation.metrics_style import FEWEST, learn_style
from adapters.records import Record, write_records
from infra.errors import FactoryError
from tests.adapters.evaluation_cases import recipe, record, write_texts

THINGS = "report file invoice ticket draft plan letter chart".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday".split()


def rewrites(count: int, seed: int = 0) -> list[Record]:
    """Rude requests made polite in one use case, polite ones made blunt in the other."""
    generator = random.Random(seed)
    made = []
    for number in range(count):
        thing, day = generator.choice(THINGS), generator.choice(DAYS)
        rude, polite = f"send me the {thing} now, {day} idiot {number}", f"Could you please send the {thing} by {day}?"
        made.append(record(f"one-{seed}-{number}", "one", rude, polite))
        made.append(record(f"two-{seed}-{number}", "two", f"{polite} {number}", rude))
    return made


def test_it_tells_targets_from_inputs_in_each_use_case() -> None:
    style = learn_style(["one", "two"], rewrites(FEWEST))
    assert style is not None
    polite, rude = "Could you please send the map by noon?", "send me the map now, idiot"
    assert style.of("one", polite) > 0.8 > 0.2 > style.of("one", rude)
    assert style.of("two", rude) > 0.8 > 0.2 > style.of("two", polite)
    assert style.of("one", "") < 0.8


def test_it_is_not_taken_where_a_use_case_has_little() -> None:
    few = rewrites(FEWEST)[:-1]
    assert learn_style(["one", "two"], few) is None and learn_style(["one"], few) is not None


def test_it_stands_beside_the_score_and_gates_can_ask_for_it(tmp_path: Path) -> None:
    plan = recipe("sari", gates={"polite": {"metric": "target_style", "comparison": "at_least", "value": 0.7}})
    held_out = rewrites(12, seed=1)
    chosen = items(plan, held_out)
    write_records(tmp_path / "held_out.jsonl", held_out)
    write_records(tmp_path / "training.jsonl", rewrites(FEWEST))
    said = {"baseline": [item.input for item in chosen], "candidate": [item.targets[0] for item in chosen]}
    systems = {name: write_texts(tmp_path / name, chosen, texts) for name, texts in said.items()}
    arguments = (plan, tmp_path / "held_out.jsonl", systems, {"adapter_mb": 9.8}, tmp_path)
    report = write_evaluation(*arguments, tmp_path / "training.jsonl")
    assert report.figures["candidate.target_style"] > 0.8 > 0.2 > report.figures["baseline.target_style"]
    assert report.figures["unchanged.target_style"] == report.figures["baseline.target_style"]
    assert {gate.name: gate.passed for gate in report.gates}["polite"]
    with pytest.raises(FactoryError, match="no target_style, since a use case has too few training records"):
        write_evaluation(*arguments)
