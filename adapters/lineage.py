"""Lineage: the keys that a version is built from, all readable without running anything.

Two versions with the same lineage are the same adapter. The evaluation key stands apart: when only it differs, the
same version is tested again and nothing is retrained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from adapters.code import code_digest
from adapters.recipe import Recipe
from adapters.records import Record, digest_records, split_held_out
from infra.canonical import digest

# The module that a stage starts in, by the name of the lineage key that its code gets.
STAGE_MODULES = {
    "code.data": "adapters.data.prepare",
    "code.synthesis": "adapters.synthesis.synthesize",
    "code.examples": "adapters.training.examples",
    "code.training": "adapters.training.adapter",
    "code.device": "adapters.device.package",
}
# The texts that a recipe keeps out of training; a key only where it names some.
EVALUATION_SETS = "evaluation_sets"
# The models that teach beside the base; a key only where a recipe names some.
TEACHERS = "teachers"
EVALUATION_MODULES = {
    "code.evaluation": "adapters.evaluation.evaluate",
    "code.answers": "adapters.evaluation.answers",
    "code.generation": "adapters.inference.generator",
}
SUITES_MODULE = "adapters.evaluation.suites.run"


@dataclass(frozen=True)
class Lineage:
    """What decides an adapter (`build`) and what decides its verdict (`evaluation`): key names → digests."""

    build: dict[str, str]
    evaluation: dict[str, str]

    @cached_property
    def key(self) -> str:
        """What decides whether an adapter must be built again."""
        return digest(self.build)

    @cached_property
    def evaluation_key(self) -> str:
        """What decides whether a built adapter must be tested again."""
        return digest(self.evaluation)


def lineage_of(
    recipe: Recipe,
    records: Sequence[Record],
    release_key: str,
    evaluation_texts: Sequence[tuple[str, str]] = (),
    suite_files: Mapping[str, str] | None = None,
    teachers: Mapping[str, str] | None = None,
) -> Lineage:
    """The lineage that `recipe` over `records` and the base release `release_key` would give now.

    `evaluation_texts` are pairs of name and text that nothing is to be trained on, `suite_files` digests of the files
    of the recipe's suites, `teachers` digests of the models that its teachers' sources hold, by the teachers' names.
    """
    training, held_out = split_held_out(records, recipe.data.held_out_share)
    build = {
        "base_release": release_key,
        "data": digest_records(training),
        "recipe.data": recipe.data.digest,
        "recipe.training": recipe.training.digest,
        "recipe.device": recipe.device.digest,
        "seed": digest(recipe.training.seed),
    }
    if evaluation_texts:
        build[EVALUATION_SETS] = digest(evaluation_texts)
    if teachers:
        build[TEACHERS] = digest(dict(teachers))
    skipped = set()
    if recipe.synthesis is not None:
        build["recipe.synthesis"] = recipe.synthesis.digest
    else:
        skipped.add("code.synthesis")
    build |= {name: code_digest(module) for name, module in STAGE_MODULES.items() if name not in skipped}
    evaluation = {
        "held_out": digest_records(record for record in held_out if record.targets),
        "recipe.evaluation": recipe.evaluation.digest,
    }
    evaluation |= {name: code_digest(module) for name, module in EVALUATION_MODULES.items()}
    if suite_files:
        evaluation["suites"] = digest([dict(suite_files), code_digest(SUITES_MODULE)])
    return Lineage(build, evaluation)


def differences(old: dict[str, str], new: dict[str, str]) -> list[tuple[str, str | None, str | None]]:
    """The keys that differ, as (name, old, new), None where a side lacks the key; sorted by name."""
    names = sorted(old.keys() | new.keys())
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
