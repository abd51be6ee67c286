"""The items of a test: which held-out records are asked, and which of them count as one document."""

from collections.abc import Sequence
from pathlib import Path

from adapters.recipe import Recipe
from adapters.records import Record, read_records, text_digest
from infra.canonical import digest
from infra.errors import FactoryError


def read_items(recipe: Recipe, held_out: Path) -> list[Record]:
    """The items of a held-out file; see `items`.

    Raises:
        FactoryError: a row is no record, or a use case has none.
    """
    records, refused = read_records(held_out)
    if refused:
        raise FactoryError(
            f"{refused[0].where}: {refused[0].reason}; held-out records must be clean, prepare them again"
        )
    return items(recipe, records)


def items(recipe: Recipe, held_out: Sequence[Record]) -> list[Record]:
    """The records to test on: up to `items_per_use_case` of each use case, in the order of a digest of their content.

    The digest chooses at random but always alike: more data changes the choice only by what comes in.

    Raises:
        FactoryError: a use case has no held-out record with a target, so nothing would test it.
    """
    chosen: list[Record] = []
    for use_case in recipe.data.use_cases:
        of_case = [record for record in held_out if record.use_case == use_case and record.targets]
        if not of_case:
            raise FactoryError(f"{recipe.feature}: use case {use_case} has no held-out record; add labelled records")
        of_case.sort(key=lambda record: (digest([record.use_case, record.input]), record.id))
        chosen += of_case[: recipe.evaluation.items_per_use_case]
    return chosen


def documents(items: Sequence[Record]) -> list[str]:
    """The document that each item comes from, named by one of its items: items of one are no independent evidence.

    Items belong together if their inputs are the same text, or if their `source` names the same document after a `#`,
    as in `mail-archive#thread-17`. (The part before it, or a source without one, names a collection.)
    """
    first: dict[str, str] = {}
    group: dict[str, str] = {}  # item → an item of its document, itself if it is the first

    def root(item: str) -> str:
        while group[item] != item:
            item = group[item]
        return item

    for item in items:
        group[item.id] = item.id
        names = [text_digest(item.input), *([item.source] if "#" in item.source else [])]
        for name in names:
            other, own = root(first.setdefault(name, item.id)), root(item.id)
            group[max(other, own)] = min(other, own)
    return [root(item.id) for item in items]


def use_cases_of(items: Sequence[Record]) -> list[str]:
    """The items' use cases, in the order in which they occur."""
    return list(dict.fromkeys(item.use_case for item in items))
