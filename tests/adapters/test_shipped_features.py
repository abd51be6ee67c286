"""The shipped features: recipes that load, and corpora that are sound, large enough, balanced and free of repeats."""

import re
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

import adapters.features
from adapters.recipe import Profile, Recipe, load_recipe
from adapters.records import Record, read_records, split_held_out, text_digest

FOLDERS = sorted(path.parent for path in Path(*adapters.features.__path__).glob("*/recipe.yaml"))
NAMES = [folder.name for folder in FOLDERS]
FAIR_SHARE = 0.75  # of an equal part that each class must reach: balanced, not counted out

feature = pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
CLASSIFIERS = [folder for folder in FOLDERS if load_recipe(folder).data.labels is not None]
WRITERS = [folder for folder in FOLDERS if folder not in CLASSIFIERS]


@cache
def recipe_of(folder: Path, profile: Profile = "quick") -> Recipe:
    return load_recipe(folder, profile)


@cache
def corpus_of(folder: Path) -> tuple[Record, ...]:
    return tuple(record for entry in recipe_of(folder).data.corpus for record in read_records(folder / entry)[0])


def of_use_case(folder: Path, use_case: str) -> list[Record]:
    return [record for record in corpus_of(folder) if record.use_case == use_case]


use_cases = pytest.mark.parametrize(
    ("folder", "use_case"),
    [(folder, use_case) for folder in FOLDERS for use_case in load_recipe(folder).data.use_cases],
    ids=lambda value: value if isinstance(value, str) else value.name,
)


def test_the_three_features_are_there() -> None:
    assert NAMES == ["notifications", "summarization", "writing"]


@feature
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_recipe_loads_in_both_profiles(folder: Path, profile: Profile) -> None:
    assert recipe_of(folder, profile).feature == folder.name


@feature
def test_recipe_opens_with_the_command_that_runs_it(folder: Path) -> None:
    first = (folder / "recipe.yaml").read_text("utf-8").splitlines()[0]
    assert first == f"# factory run {folder.name}"


@feature
def test_full_profile_works_harder_on_the_same_data(folder: Path) -> None:
    quick, full = recipe_of(folder, "quick"), recipe_of(folder, "full")
    assert full.training.epochs > quick.training.epochs
    assert full.data == quick.data, "a profile must not move records between the sides"


@feature
def test_no_corpus_row_is_quarantined(folder: Path) -> None:
    entries = recipe_of(folder).data.corpus
    refused = [bad for entry in entries for bad in read_records(folder / entry)[1]]
    assert refused == []
    assert sorted(entries) == sorted(path.relative_to(folder).as_posix() for path in folder.glob("corpus/*"))


@feature
def test_ids_are_unique_in_the_feature_and_use_cases_are_the_recipes(folder: Path) -> None:
    records = corpus_of(folder)
    assert [name for name, count in Counter(record.id for record in records).items() if count > 1] == []
    assert {record.use_case for record in records} == recipe_of(folder).data.use_cases.keys()


@feature
def test_records_are_ours_to_ship(folder: Path) -> None:
    assert {(record.license, record.source) for record in corpus_of(folder)} == {("Apache-2.0", "adapter-factory")}


@use_cases
def test_use_case_is_large_enough_to_train_and_test(folder: Path, use_case: str) -> None:
    records = of_use_case(folder, use_case)
    training, held_out = split_held_out(records, recipe_of(folder).data.held_out_share)
    assert len(records) >= 200
    assert len(held_out) >= 30
    assert sum(record.target is not None for record in training) >= 100


@feature
def test_use_cases_are_balanced(folder: Path) -> None:
    counts = Counter(record.use_case for record in corpus_of(folder))
    assert min(counts.values()) / max(counts.values()) > 0.8


@use_cases
def test_only_features_with_synthesis_have_records_without_target(folder: Path, use_case: str) -> None:
    unlabelled = sum(record.target is None for record in of_use_case(folder, use_case))
    assert (unlabelled >= 30) if recipe_of(folder).synthesis else (unlabelled == 0)


@pytest.mark.parametrize("folder", CLASSIFIERS, ids=lambda folder: folder.name)
def test_classes_are_balanced_on_both_sides(folder: Path) -> None:
    data = recipe_of(folder).data
    assert data.labels is not None
    for use_case in data.use_cases:
        for side in split_held_out(of_use_case(folder, use_case), data.held_out_share):
            counts = Counter(target for record in side for target in record.targets)
            assert counts.keys() == set(data.labels)
            assert min(counts.values()) >= FAIR_SHARE * len(side) / len(data.labels), counts


@use_cases
def test_lengths_are_within_the_recipe(folder: Path, use_case: str) -> None:
    case = recipe_of(folder).data.use_cases[use_case]
    odd = []
    for record in of_use_case(folder, use_case):
        texts = [(record.input, case.input_words), *((target, case.target_words) for target in record.targets)]
        odd += [record.id for text, (least, most) in texts if not least <= len(text.split()) <= most]
    assert odd == []


@feature
def test_no_input_occurs_twice(folder: Path) -> None:
    # Between the use cases of a feature too: a text may be held out for one and trained on for none.
    counts = Counter((record.use_case, text_digest(record.input)) for record in corpus_of(folder))
    assert [key for key, count in counts.items() if count > 1] == []


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + 5]) for start in range(max(len(words) - 4, 1))}


@use_cases
def test_no_two_inputs_nearly_repeat_each_other(folder: Path, use_case: str) -> None:
    grams = {record.id: five_grams(record.input) for record in of_use_case(folder, use_case)}
    near = [
        (one, other)
        for one, other in combinations(grams, 2)
        if len(grams[one] & grams[other]) > 0.6 * len(grams[one] | grams[other])
    ]
    assert near == []


@use_cases
def test_few_inputs_share_an_opening(folder: Path, use_case: str) -> None:
    # What a template with filled slots gives away first.
    records = of_use_case(folder, use_case)
    openings = Counter(" ".join(re.findall(r"\w+", record.input.casefold())[:5]) for record in records)
    opening, count = openings.most_common(1)[0]
    assert count <= 0.05 * len(records), opening


@use_cases
def test_texts_are_clean(folder: Path, use_case: str) -> None:
    odd = [
        record.id
        for record in of_use_case(folder, use_case)
        for text in (record.input, *record.targets)
        if text != text.strip()
        or re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]|\{\w*\}|\[(?:NAME|DATE)\]|TODO|lorem", text)
    ]
    assert odd == []


@pytest.mark.parametrize("folder", WRITERS, ids=lambda folder: folder.name)
def test_targets_differ_from_inputs_and_from_each_other(folder: Path) -> None:
    for use_case in recipe_of(folder).data.use_cases:
        records = [record for record in of_use_case(folder, use_case) if record.targets]
        # Some texts have no mistake in them, and must stay as they are.
        unchanged = [record.id for record in records if record.input in record.targets]
        assert len(unchanged) <= (0.15 * len(records) if use_case == "proofread" else 0), unchanged
        targets = Counter(target for record in records for target in record.targets)
        assert [target for target, count in targets.items() if count > 1] == []


def numbers(text: str) -> set[str]:
    """Numbers as they are compared: 1,940.00 is 1940, 6.30 stays 6.30, and 06 is 6."""
    found = re.findall(r"\d+(?:[.,:]\d+)*", text)
    plain = (re.sub(r",(?=\d{3}\b)", "", number).replace(":", ".") for number in found)
    return {re.sub(r"^0+(?=\d)|\.0+$", "", number) for number in plain}


@pytest.mark.parametrize("use_case", ["email", "messages", "notifications"])
def test_numbers_of_a_summary_are_in_its_input(use_case: str) -> None:
    folder = next(folder for folder in FOLDERS if folder.name == "summarization")
    invented = {
        record.id: extra
        for record in of_use_case(folder, use_case)
        for target in record.targets
        if (extra := numbers(target) - numbers(record.input))
    }
    assert invented == {}
