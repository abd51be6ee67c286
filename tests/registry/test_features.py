"""Features: found in their folders, the shipped ones and a team's own, with every problem named at once."""

from pathlib import Path

import pytest

from infra.errors import FactoryError
from registry.features import find_features

RECIPE = """
feature: {name}
description: test
data:
  corpus: []
  system: You help.
  use_cases:
    answer: {{prompt: "{{input}}", max_new_tokens: 8}}
evaluation: {{metric: rouge_l}}
"""


def _feature(folder: Path, name: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=name or folder.name))
    return folder


def test_own_features_are_found_by_folder(tmp_path: Path) -> None:
    found = find_features([_feature(tmp_path / "b"), _feature(tmp_path / "a")], shipped=False)
    assert list(found) == ["a", "b"]
    assert (found["a"].folder, found["a"].recipe.feature) == (tmp_path / "a", "a")


def test_the_shipped_features_are_found() -> None:
    assert {"summarization", "writing", "notifications"} <= find_features([]).keys()


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    folders = [
        _feature(tmp_path / "mine"),
        _feature(tmp_path / "again" / "mine"),
        _feature(tmp_path / "base"),
        _feature(tmp_path / "Bad Name"),
        tmp_path / "absent",
    ]
    with pytest.raises(FactoryError) as caught:
        find_features(folders, shipped=False)
    message = str(caught.value)
    for part in ("'mine' is in", "'base' is reserved", "feature: String should match", "no such recipe"):
        assert part in message


def test_one_feature_is_opened_without_the_others(tmp_path: Path) -> None:
    """A colleague's broken recipe must not hold up a rollback."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "recipe.yaml").write_text("feature: [", "utf-8")
    folders = [broken, _feature(tmp_path / "mine")]
    assert list(find_features(folders, shipped=False, only="mine")) == ["mine"]
    with pytest.raises(FactoryError, match="not YAML"):
        find_features(folders, shipped=False)
    with pytest.raises(FactoryError, match="'mine' is in"):
        find_features([*folders, _feature(tmp_path / "again/mine")], shipped=False, only="mine")
