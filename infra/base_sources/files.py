"""Which files of a model count, and whether a folder of them is whole. The same for every source."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from infra.errors import FactoryError

# What determines a model and its tokenizer; anything else in a repository (read-me, training logs, other formats) is
# left where it is, so that it cannot change the digest.
_SIDE_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "chat_template.jinja",
        "chat_template.json",
    }
)
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLE = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def choose_files(names: Iterable[str], where: str) -> list[str]:
    """Of the relative file names of a model, those to fetch: safetensors weights, configuration, tokenizer.

    Only the top level counts: folders below hold other formats of the same model.

    Raises:
        FactoryError: no configuration, no tokenizer, or no safetensors weights (pickled ones are refused by name).
    """
    names = list(names)
    chosen = sorted(name for name in names if name in _SIDE_FILES or _WEIGHTS.fullmatch(name))
    if "config.json" not in chosen:
        raise FactoryError(f"{where}: no config.json, so no model; name one in Hugging Face's layout")
    if not any(_WEIGHTS.fullmatch(name) for name in chosen):
        pickled = [name for name in names if PurePosixPath(name).suffix in _PICKLE]
        if pickled:
            raise FactoryError(
                f"{where}: {pickled[0]} is a pickle, which can run code when loaded; save the model as safetensors"
            )
        raise FactoryError(f"{where}: no model.safetensors; save the model as safetensors")
    if not any(name in chosen for name in _TOKENIZERS):
        raise FactoryError(f"{where}: no tokenizer (one of {', '.join(_TOKENIZERS)}); save it beside the model")
    return chosen


def copy_model(source: Path, folder: Path) -> None:
    """Copy the files that count from one folder to another; links are followed, the copy holds none.

    Raises:
        FactoryError: `source` is no folder or holds no model.
    """
    if not source.is_dir():
        raise FactoryError(f"{source}: no such folder")
    for name in choose_files((path.name for path in source.iterdir() if path.is_file()), str(source)):
        shutil.copyfile(source / name, folder / name)


def check_model(folder: Path, where: str) -> None:
    """Check that every weight file is whole safetensors and every shard of the index is there.

    Raises:
        FactoryError: naming the file that is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError, AttributeError) as error:
        raise FactoryError(f"{where}: config.json or the index of the weights is damaged: {error}") from None
    weights = {path.name for path in folder.glob("*.safetensors")}
    if missing := sorted(shards - weights):
        raise FactoryError(f"{where}: {missing[0]} is named in {index.name} but missing")
    for name in sorted(weights):
        try:
            with safe_open(folder / name, framework="np") as file:
                file.keys()
        except SafetensorError as error:
            raise FactoryError(f"{where}: {name} is damaged or cut off: {error}") from None
