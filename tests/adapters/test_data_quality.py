"""The quality model learns from good texts, tells damage that it never saw, and is what its file says."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

import adapters.data
import adapters.features
from adapters.data.cleaning import clean
from adapters.data.quality import VERSION, QualityModel, load_quality
from adapters.data.train_quality import TESTED_ON, TRAINED_ON, train_quality
from adapters.recipe import CleaningSection
from adapters.records import Record, read_records
from infra.errors import FactoryError

MODELS = Path(*adapters.data.__path__) / "models"


def shipped_texts() -> list[str]:
    folder = Path(*adapters.features.__path__)
    return [record.input for path in sorted(folder.glob("*/corpus/*.jsonl")) for record in read_records(path)[0]]


@pytest.fixture(scope="module")
def trained() -> tuple[QualityModel, dict[str, object]]:
    return train_quality(random.Random(1).sample(shipped_texts(), 240), seed=3)


def test_it_tells_good_texts_from_damage_of_kinds_that_it_never_saw(
    trained: tuple[QualityModel, dict[str, object]],
) -> None:
    model, facts = trained
    new = facts["auc_new_damage"]
    assert isinstance(new, dict)
    assert not {damage.__name__ for damage in TESTED_ON} & {damage.__name__ for damage in TRAINED_ON}
    assert min(new[name] for name in ("mojibake", "reversed", "log", "keys")) > 0.9, facts
    assert model.score("Thanks for the notes. I will read them tonight and call you tomorrow.") > model.score(
        "x9 x9 x9 x9 || <td> ]] 0000;0000;0000"
    )


def test_a_model_is_its_files_and_training_repeats(
    trained: tuple[QualityModel, dict[str, object]], tmp_path: Path
) -> None:
    model, facts = trained
    model.save(tmp_path, "quality-9", facts)
    read = load_quality(tmp_path, "quality-9")
    again, _ = train_quality(random.Random(1).sample(shipped_texts(), 240), seed=3)
    for text in ("A short text of some words, as people write them.", "", "\n", "日本語のテキスト", "a" * 100_000):
        assert read.score(text) == model.score(text) == again.score(text)
        assert 0 <= read.score(text) <= 1


def test_other_weights_are_refused(trained: tuple[QualityModel, dict[str, object]], tmp_path: Path) -> None:
    model, facts = trained
    model.save(tmp_path, "quality-8", facts)
    replace(model, weights=-model.weights).save(tmp_path / "other", "quality-8", facts)
    (tmp_path / "other" / "quality-8.safetensors").replace(tmp_path / "quality-8.safetensors")
    with pytest.raises(FactoryError, match=r"not the weights that quality-8\.json names"):
        load_quality(tmp_path, "quality-8")


def test_the_shipped_model_says_how_good_it_is() -> None:
    facts = json.loads((MODELS / f"{VERSION}.json").read_text())
    assert facts["version"] == VERSION
    assert facts["held_out"] > 400
    assert facts["good_kept_at_half"] > 0.95
    assert min(facts["auc_new_damage"].values()) > 0.75


def test_the_threshold_is_the_recipes() -> None:
    good = Record(id="g", use_case="u", input=shipped_texts()[0], source="s", license="l")
    bad = good.model_copy(update={"id": "b", "input": "asdf jkl; qqq wdlf ;;lk asd fjk wsdk lfjq; wkdf ldkj"})
    result = clean([good, bad], CleaningSection(quality=0.2))
    assert [record.id for record in result.records] == ["g"]
    assert result.removed[0].reason.endswith("of the input is below 0.2")
    assert len(clean([good, bad], CleaningSection(quality=0.0)).records) == 2
