"""Find features: every folder with a recipe, the shipped ones and a team's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import adapters.features
from adapters.recipe import Profile, Recipe, load_recipe
from infra.errors import FactoryError
from registry.decisions import BASE


@dataclass(frozen=True)
class Feature:
    """A feature: the folder that holds its recipe and corpus, as an absolute path without links, and the recipe."""

    folder: Path
    recipe: Recipe


def find_features(
    extra: Sequence[Path], shipped: bool = True, profile: Profile = "quick", only: str | None = None
) -> dict[str, Feature]:
    """Features by name, in order: those that ship with the factory, if wanted, and the folders in `extra`.

    With `only`, no folder of another name is opened: a feature's name is that of its folder.

    Raises:
        FactoryError: bad recipes, names used twice or reserved, all at once.
    """
    features: dict[str, Feature] = {}
    problems: list[str] = []
    for given in (*(_shipped() if shipped else ()), *extra):
        folder = given.resolve()
        if only is not None and folder.name != only:
            continue
        try:
            recipe = load_recipe(folder, profile)
        except FactoryError as error:
            problems.append(str(error))
            continue
        name = recipe.feature
        if name == BASE:
            problems.append(f"{folder}: {BASE!r} is reserved for base releases; name the feature otherwise")
        elif name in features:
            problems.append(f"{folder}: feature {name!r} is in {features[name].folder} already; rename one of them")
        else:
            features[name] = Feature(folder, recipe)
    if problems:
        raise FactoryError("\n".join(problems))
    return dict(sorted(features.items()))


def feature_names(extra: Sequence[Path], shipped: bool = True) -> list[str]:
    """Names of the features that `find_features` would find, in order; no recipe is opened, so none can be wrong."""
    return sorted({folder.resolve().name for folder in (*(_shipped() if shipped else ()), *extra)})


def _shipped() -> list[Path]:
    return sorted(path.parent for path in Path(*adapters.features.__path__).glob("*/recipe.yaml"))
