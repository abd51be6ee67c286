"""The channel: the folder that devices download from.

    <root>/production.json                                 the current base release
    <root>/<release>/base/                                 its package: model, tokenizer, recovery adapter, manifest
    <root>/<release>/<feature>/production.json             the version to use with this base release
    <root>/<release>/<feature>/<version>/                  an adapter's package

`<release>` is the first 16 digits of the base release's key. Packages never change once published. The pointers do,
each by an atomic rename; they hold number and hash of the ledger row that they follow, so that a late writer cannot
move one back, and a ledger that lost its last rows is found out.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.device.package import PackagedFile, stamp_version, verify_package
from infra.canonical import canonical_json, file_digests
from infra.errors import CheckFailed, FactoryError
from registry.decisions import BASE, Row

POINTER = "production.json"
MANIFEST = "manifest.json"
# What of a base release's folder a device needs: the asset, the tokenizer, the recovery adapter and the facts.
_DEVICE_PARTS = ("model.aimodel/", "recovery/", "release.json")
_DEVICE_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class Manifest(BaseModel):
    """Files of a published base release by path; `release_digest` is that of the whole folder in the catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_release: str
    version: int = Field(gt=0)
    release_digest: str
    files: dict[str, PackagedFile]


class Pointer(BaseModel):
    """Which version a device with some base release is to use, and the ledger row that says so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: str
    base_release: str
    version: int = Field(gt=0)
    package: str
    files: dict[str, PackagedFile]
    number: int = Field(gt=0)
    row: str


class Channel:
    """A channel in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def package_folder(self, feature: str, base_release: str, version: int) -> Path:
        """Where an adapter's package lies, published or not."""
        return self._release(base_release) / feature / str(version)

    def base_folder(self, base_release: str) -> Path:
        """Where a base release's package lies, published or not."""
        return self._release(base_release) / BASE

    def pointer(self, feature: str, base_release: str) -> Pointer | None:
        """What a feature's pointer (of `base`: the channel's) says, or None if there is none.

        Raises:
            FactoryError: the pointer is damaged.
        """
        return _read_pointer(self._pointer_path(feature, base_release))

    def pointers(self) -> list[Pointer]:
        """Every pointer in the channel, its own and those of features.

        Raises:
            FactoryError: a pointer is damaged.
        """
        paths = sorted((*self._root.glob(POINTER), *self._root.glob(f"*/*/{POINTER}")))
        return [pointer for pointer in map(_read_pointer, paths) if pointer is not None]

    def publish_adapter(self, package: Path, row: Row) -> None:
        """Publish the package that a ledger row put in production, and point to it. Doing so again changes nothing.

        Raises:
            CheckFailed: the channel follows a later row already.
            FactoryError: the package is damaged, or the channel holds another one under this version.
        """
        target = self.package_folder(row.feature, row.base_release, row.version)
        if not target.exists():
            with _appearing(target) as folder:
                _require(stamp_version(package, folder, row.version).digest, row, package)
        metadata = verify_package(target)
        _require(metadata.digest, row, target)
        self._point(row, metadata.files)

    def publish_release(self, release_folder: Path, row: Row) -> None:
        """Publish the base release that a ledger row made current, and point to it. Doing so again changes nothing.

        Raises:
            CheckFailed: the channel follows a later row already.
            FactoryError: what the channel holds for this release was changed.
        """
        target = self.base_folder(row.base_release)
        if not target.exists():
            with _appearing(target) as folder:
                files = _copy_device_files(release_folder, folder)
                manifest = Manifest(
                    base_release=row.base_release, version=row.version, release_digest=row.package, files=files
                )
                (folder / MANIFEST).write_bytes(canonical_json(manifest.model_dump(mode="json")))
        manifest = verify_release_package(target)
        _require(manifest.release_digest, row, target)
        self._point(row, manifest.files)

    def _point(self, row: Row, files: dict[str, PackagedFile]) -> None:
        present = self.pointer(row.feature, row.base_release)
        if present is not None and present.number > row.number:
            raise CheckFailed(
                f"{row.feature}: the channel follows decision {present.number} already, not {row.number}; run again"
            )
        pointer = Pointer(
            feature=row.feature,
            base_release=row.base_release,
            version=row.version,
            package=row.package,
            files=files,
            number=row.number,
            row=row.hash,
        )
        if pointer != present:
            _write_whole(
                self._pointer_path(row.feature, row.base_release), canonical_json(pointer.model_dump(mode="json"))
            )

    def _release(self, base_release: str) -> Path:
        return self._root / base_release[:16]

    def _pointer_path(self, feature: str, base_release: str) -> Path:
        return (self._root if feature == BASE else self._release(base_release) / feature) / POINTER


def _read_pointer(path: Path) -> Pointer | None:
    try:
        return Pointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise FactoryError(f"{path}: damaged ({problem}); remove it, the next command writes it again") from None


def verify_release_package(folder: Path) -> Manifest:
    """Check a published base release file by file against its manifest.

    Raises:
        FactoryError: a file is missing, unknown, a link, or changed.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        found = file_digests(folder)
    except FileNotFoundError:
        raise FactoryError(f"{folder}: no {MANIFEST}, so no base release; remove that folder and run again") from None
    except ValueError as error:
        raise FactoryError(
            f"{folder}: damaged ({str(error).splitlines()[0]}); remove that folder and run again"
        ) from None
    del found[MANIFEST]
    stated = {name: file.sha256 for name, file in manifest.files.items()}
    if odd := sorted(name for name in found.keys() | stated.keys() if found.get(name) != stated.get(name)):
        raise FactoryError(f"{folder / odd[0]}: not what {MANIFEST} promises; remove {folder} and run again")
    return manifest


def _require(found: str, row: Row, folder: Path) -> None:
    if found != row.package:
        raise FactoryError(f"{folder}: not the package that the ledger names ({row.feature} {row.version}); remove it")


def _copy_device_files(release_folder: Path, target: Path) -> dict[str, PackagedFile]:
    digests = file_digests(release_folder)
    chosen = [name for name in digests if name in _DEVICE_FILES or name.startswith(_DEVICE_PARTS)]
    for name in chosen:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(release_folder / name, target / name)
    return {name: PackagedFile(sha256=digests[name], bytes=(target / name).stat().st_size) for name in chosen}


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target`, whole or not at all."""
    making = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    making.mkdir(parents=True)
    try:
        yield making
        try:
            making.rename(target)
        except OSError:
            # Another process published the same first; the caller checks what is there.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    with making.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
