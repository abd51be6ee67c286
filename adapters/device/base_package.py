"""The package of a base release: what a device needs of it, listed in `manifest.json`.

The Core AI asset, the tokenizer, the recovery adapter, which runs where no feature's adapter does, and the facts. The
palettized weights in safetensors are for training and stay in the registry.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.device.channel_layout import checked_file
from adapters.device.package import PackagedFile
from infra.canonical import digest_file, file_digests
from infra.errors import FactoryError

MANIFEST = "manifest.json"
_PARTS = ("model.aimodel/", "recovery/", "release.json")
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_SHA256 = r"^[0-9a-f]{64}$"


class Manifest(BaseModel):
    """Files of a base release's package by path.

    `base_release` is the release's key, which adapters name; `release_digest` that of its whole folder in the registry.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    base_release: str = Field(pattern=_SHA256)
    version: int = Field(gt=0)
    release_digest: str = Field(pattern=_SHA256)
    files: dict[str, PackagedFile] = Field(min_length=1)

    def to_bytes(self) -> bytes:
        """The content of `manifest.json`."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def make_manifest(release_folder: Path, base_release: str, version: int, release_digest: str) -> Manifest:
    """The manifest of what devices get of a release's folder.

    Raises:
        FactoryError: a file has a name that no package may hold.
    """
    files = {}
    for path in sorted(release_folder.rglob("*")):
        name = path.relative_to(release_folder).as_posix()
        if path.is_file() and (name in _FILES or name.startswith(_PARTS)):
            files[checked_file(name)] = PackagedFile(sha256=digest_file(path), bytes=path.stat().st_size)
    return Manifest(base_release=base_release, version=version, release_digest=release_digest, files=files)


def read_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from anywhere.

    Raises:
        FactoryError: it is none, or names a path outside the package.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FactoryError(
            f"{where}: no manifest of a base release ({place}: {first['msg']}); fetch it again"
        ) from None
    for name in manifest.files:
        checked_file(name)
    return manifest


def verify_base_package(folder: Path) -> Manifest:
    """Check the package of a base release file by file against its manifest.

    Raises:
        FactoryError: a file is missing, unknown, a link, or changed.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        found = file_digests(folder)
    except OSError:
        raise FactoryError(f"{folder}: no {MANIFEST}, so no base release; fetch the package again") from None
    except ValueError as error:
        raise FactoryError(f"{folder}: {error}; fetch the package again") from None
    manifest = read_manifest(content, str(folder / MANIFEST))
    del found[MANIFEST]
    stated = {name: file.sha256 for name, file in manifest.files.items()}
    if odd := sorted(name for name in found.keys() | stated.keys() if found.get(name) != stated.get(name)):
        raise FactoryError(f"{folder / odd[0]}: not what {MANIFEST} promises; fetch the package again")
    return manifest
