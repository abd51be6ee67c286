"""Records as training examples: the prompt of their use case, and what shall be answered."""

from collections.abc import Sequence
from pathlib import Path

from adapters.inference.types import Prompt
from adapters.recipe import Recipe
from adapters.records import read_records
from adapters.training.batching import Example


def read_examples(recipe: Recipe, files: Sequence[Path]) -> list[Example]:
    """One example per record and reference of the JSONL files, in file order; records without a target give none."""
    examples: list[Example] = []
    for file in files:
        for record in read_records(file)[0]:
            user = recipe.data.use_cases[record.use_case].ask(record.input)
            examples += [Example(Prompt(recipe.data.system, user), target) for target in record.targets]
    return examples
