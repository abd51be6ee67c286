"""Lineage: each change makes stale what depends on it, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import lineage as lineage_module
from adapters.lineage import Lineage, differences, lineage_of
from adapters.recipe import Recipe
from adapters.records import Record, is_held_out

RECORDS = [
    Record(id=f"r-{n}", use_case="reply", input=f"text {n}", target=f"answer {n}", source="test", license="Apache-2.0")
    for n in range(40)
]
CONTENT: dict[str, Any] = {
    "feature": "replies",
    "description": "Short replies",
    "data": {
        "corpus": ["corpus/replies.jsonl"],
        "system": "You reply.",
        "use_cases": {"reply": {"prompt": "Reply to this.\n\n{input}", "max_new_tokens": 32}},
        "held_out_share": 0.25,
    },
    "synthesis": {},
    "training": {},
    "evaluation": {"metric": "rouge_l"},
}


@pytest.fixture(autouse=True)
def _code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code stands still here; tests/adapters/test_code.py is about it."""
    monkeypatch.setattr(lineage_module, "code_digest", lambda module: f"code of {module}")


def recipe(**sections: dict[str, Any] | None) -> Recipe:
    changed = {
        name: section if section is None else CONTENT.get(name, {}) | section for name, section in sections.items()
    }
    return Recipe.model_validate(CONTENT | changed)


def lineage(records: list[Record] = RECORDS, release: str = "base-1", **sections: dict[str, Any] | None) -> Lineage:
    return lineage_of(recipe(**sections), records, release)


def changed(after: Lineage) -> tuple[list[str], list[str]]:
    """Names of the build keys and of the evaluation keys that differ from the unchanged lineage's."""
    before = lineage()
    assert (after.key == before.key) == (after.build == before.build)
    assert (after.evaluation_key == before.evaluation_key) == (after.evaluation == before.evaluation)
    names = [differences(old, new) for old, new in ((before.build, after.build), (before.evaluation, after.evaluation))]
    return [name for name, _, _ in names[0]], [name for name, _, _ in names[1]]


def with_changed(record: Record) -> list[Record]:
    return [other.model_copy(update={"target": "changed"}) if other is record else other for other in RECORDS]


TRAINING = next(record for record in RECORDS if not is_held_out(record, 0.25))
HELD_OUT = next(record for record in RECORDS if is_held_out(record, 0.25))


def test_nothing_changed() -> None:
    assert changed(lineage()) == ([], [])


def test_order_of_records_does_not_count() -> None:
    assert changed(lineage(RECORDS[::-1])) == ([], [])


def test_changed_training_record_needs_a_build() -> None:
    assert changed(lineage(with_changed(TRAINING))) == (["data"], [])


def test_changed_held_out_record_needs_an_evaluation_only() -> None:
    assert changed(lineage(with_changed(HELD_OUT))) == ([], ["held_out"])


def test_removed_and_added_records_count_on_their_side_only() -> None:
    assert changed(lineage([record for record in RECORDS if record is not TRAINING])) == (["data"], [])
    assert changed(lineage([record for record in RECORDS if record is not HELD_OUT])) == ([], ["held_out"])


def test_record_without_target_is_something_to_build_from() -> None:
    unlabelled = TRAINING.model_copy(update={"id": "new", "input": "a new text", "target": None})
    assert changed(lineage([*RECORDS, unlabelled])) == (["data"], [])


def test_changed_prompt_needs_a_build() -> None:
    use_cases = {"reply": {"prompt": "Answer this.\n\n{input}", "max_new_tokens": 32}}
    assert changed(lineage(data={"use_cases": use_cases})) == (["recipe.data"], [])
    assert changed(lineage(data={"system": "You answer."})) == (["recipe.data"], [])


def test_changed_gate_needs_an_evaluation_only() -> None:
    gates = {"better_than_baseline": {"value": 0.1}}
    assert changed(lineage(evaluation={"gates": gates})) == ([], ["recipe.evaluation"])
    assert changed(lineage(evaluation={"metric": "sari"})) == ([], ["recipe.evaluation"])


def test_changed_files_of_a_suite_need_an_evaluation_only() -> None:
    files = ({}, {"safety.adversarial": "a" * 64}, {"safety.adversarial": "b" * 64})
    made = [lineage_of(recipe(), RECORDS, "base-1", suite_files=one) for one in files]
    assert made[0] == lineage() and len({one.key for one in made}) == 1
    assert len({one.evaluation_key for one in made}) == 3


def test_changed_training_settings_need_a_build() -> None:
    assert changed(lineage(training={"rank": 8})) == (["recipe.training"], [])
    assert changed(lineage(training={"seed": 1})) == (["recipe.training", "seed"], [])


def test_changed_synthesis_needs_a_build() -> None:
    assert changed(lineage(synthesis={"candidates": 8})) == (["recipe.synthesis"], [])
    assert changed(lineage(synthesis=None)) == (["code.synthesis", "recipe.synthesis"], [])


def test_other_base_release_needs_a_build() -> None:
    assert changed(lineage(release="base-2")) == (["base_release"], [])


def test_description_makes_nothing_stale() -> None:
    after = lineage_of(Recipe.model_validate(CONTENT | {"description": "Other words"}), RECORDS, "base-1")
    assert changed(after) == ([], [])


@pytest.mark.parametrize(
    ("module", "names"),
    [(module, ([name], [])) for name, module in lineage_module.STAGE_MODULES.items()]
    + [(module, ([], [name])) for name, module in lineage_module.EVALUATION_MODULES.items()],
)
def test_changed_code_counts_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, module: str, names: tuple[list[str], list[str]]
) -> None:
    before = lineage()
    monkeypatch.setattr(lineage_module, "code_digest", lambda name: "new" if name == module else f"code of {name}")
    after = lineage()
    found = [differences(before.build, after.build), differences(before.evaluation, after.evaluation)]
    assert tuple([name for name, _, _ in part] for part in found) == names


def test_keys_are_digests_of_plain_text() -> None:
    one = lineage()
    assert len(one.key) == len(one.evaluation_key) == 64 and one.key != one.evaluation_key
    assert all(isinstance(value, str) for value in (one.build | one.evaluation).values())


KEYS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"))


@given(KEYS, KEYS)
def test_differences_name_exactly_what_differs(old: dict[str, str], new: dict[str, str]) -> None:
    found = differences(old, new)
    assert [name for name, _, _ in found] == sorted(name for name in "abcd" if old.get(name) != new.get(name))
    assert all((before, after) == (old.get(name), new.get(name)) for name, before, after in found)
    patched = old | {name: after for name, _, after in found if after is not None}
    assert {name: value for name, value in patched.items() if name in new} == new


def test_what_a_job_asks_for_makes_nothing_stale() -> None:
    asked = recipe(resources={"cpu": 4, "memory": "24Gi"})
    assert (asked.resources.cpu, asked.resources.memory) == (4, "24Gi")
    assert lineage_of(asked, RECORDS, "release") == lineage_of(recipe(), RECORDS, "release")
    with pytest.raises(ValueError, match="memory"):
        recipe(resources={"memory": "24 GB"})


def test_who_approves_makes_nothing_stale() -> None:
    asked = recipe(promotion={"approval": "required", "request_days": 2})
    assert asked.promotion.approval_days == 2
    assert recipe().promotion.approval_days is None
    assert lineage_of(asked, RECORDS, "release") == lineage_of(recipe(), RECORDS, "release")
