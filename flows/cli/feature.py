"""`factory feature`: a team's own features."""

import re
from pathlib import Path
from typing import Annotated

import typer
from tomlkit import TOMLDocument

from flows.cli.output import say
from infra.errors import FactoryError

app = typer.Typer(help="Add features of your own.", no_args_is_help=True)

_RECIPE = """\
# factory run {name}
feature: {name}
description: What this feature does for its user
data:
  corpus: [corpus/examples.jsonl]        # more with: factory data add {name} FILE --use-case answer
  system: You help the user.
  held_out_share: 0.2                    # of the labelled records: tested on, never trained on
  use_cases:
    answer:
      prompt: "{{input}}"                  # what the model is asked; {{input}} is the record's input
      max_new_tokens: 64
training:
  rank: 16                               # at least the recovery adapter's
  learning_rate: 1.0e-3
  epochs: 2.0
evaluation:
  metric: rouge_l                        # rouge_l, sari (rewriting) or macro_f1 (needs data.labels)
"""


@app.callback()
def _features() -> None:
    """Add features of your own."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and dashes.")],
    folder: Annotated[Path, typer.Option(help="Where the feature's folder is made.")] = Path("features"),
) -> None:
    """Make a recipe folder and enter it in factory.toml; the whole line then serves it."""
    from infra.settings import CONFIG_FILE, edit_settings, load_settings
    from registry.features import find_features

    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise FactoryError(f"feature name {name!r}: use lower-case letters, digits and dashes, a letter first")
    settings = load_settings()
    if name == "base" or name in find_features(settings.features, settings.shipped_features):
        raise FactoryError(f"feature {name!r} exists already; choose another name")
    target = folder / name
    if target.exists():
        raise FactoryError(f"{target} exists already; remove it or choose another name")
    (target / "corpus").mkdir(parents=True)
    (target / "recipe.yaml").write_text(_RECIPE.format(name=name), "utf-8")
    (target / "corpus" / "examples.jsonl").write_text("", "utf-8")

    def enter(document: TOMLDocument) -> None:
        document.setdefault("features", []).append(target.as_posix())

    edit_settings(enter)
    say(f"made {target / 'recipe.yaml'} and entered it in {CONFIG_FILE}")
    say(f"next: edit the recipe, `factory data add {name} FILE --use-case answer`, `factory run {name}`")
