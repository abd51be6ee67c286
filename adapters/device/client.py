"""The device's side of a channel: finds, downloads and checks what one device is to use, by TUF's client workflow.

    <folder>/base/            the base release's package
    <folder>/<feature>/       an adapter's package
    <folder>/.channel/        what this device has trusted so far, and its id

Notable choices:
- Nothing is believed that is not signed by the keys that the device's root names, and nothing older than what it has
  seen. A package takes the place of the former one when it is whole and checked; a refused one changes nothing.
- The channel may be served by anybody, over HTTP or as a folder: trust comes from the root that the device was given.
- Only python-tuf, numpy and safetensors are needed: no torch, no registry.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import ValidationError
from tuf.api import exceptions
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater

from adapters.device import channel_layout
from adapters.device.base_package import MANIFEST, Manifest, read_manifest, verify_base_package
from adapters.device.channel_layout import BASE, Pointer, checked_release, package_path, pointer_path
from adapters.device.package import CONFIG, METADATA, WEIGHTS, PackageMetadata, verify_package
from adapters.device.transport import Refused, open_transport, refusing
from infra.errors import FactoryError
from infra.progress import track
from infra.workspace import write_atomically

_MIXED = "files that do not belong together (mix-and-match)"


@dataclass(frozen=True)
class Pulled:
    """What the device uses now; `downloaded` counts bytes, 0 if it was there already."""

    feature: str
    base_release: str
    version: int
    staged: bool
    folder: Path
    downloaded: int


class Device:
    """A device that keeps what it uses in a folder and follows one channel, a URL or a folder.

    `root` is the root metadata that came with the device's software; it is needed the first time only. `device_id`
    decides about staged rollouts; without one a random id is made and kept.
    """

    def __init__(self, channel: str, folder: Path, root: Path | None = None, device_id: str | None = None) -> None:
        self._channel = channel
        self._folder = folder
        self._state = folder / ".channel"
        self._root = root
        self._id = device_id

    def pull(self, feature: str, base_release: str | None = None) -> Pulled:
        """Bring the adapter of a feature to what the channel says for the device's base release.

        `base_release` names it (its key) for a device that does not keep it in this folder.

        Raises:
            Refused: what the channel offers is not what was signed for this device.
            FactoryError: the channel cannot be reached or has nothing for this base release.
        """
        with self._session() as updater:
            base = self._installed_base()
            release = self._base_of_device(base, base_release)
            pointer = self._pointer(updater, feature, release)
            version, digest = pointer.version_for(self._device_id())
            staged = (version, digest) != (pointer.version, pointer.package)
            target = self._folder / feature
            base_digest = base.release_digest if base else None

            def check(folder: Path) -> None:
                self._require_meant(verify_package(folder), feature, release, version, digest, base_digest)

            names = [f"{package_path(feature, release, version)}/{name}" for name in (METADATA, CONFIG, WEIGHTS)]
            infos = {name.rsplit("/", 1)[1]: self._info(updater, name) for name in names}
            downloaded = self._install(updater, target, infos, check)
        return Pulled(feature, release, version, staged, target, downloaded)

    def pull_base(self, base_release: str | None = None) -> Pulled:
        """Bring the base release to a certain one, by default to the one that is current in the channel.

        Raises:
            Refused: what the channel offers is not what was signed for this device.
            FactoryError: the channel cannot be reached or does not have this base release.
        """
        with self._session() as updater:
            release = checked_release(base_release) if base_release else None
            release = release or self._pointer(updater, BASE, None).base_release
            folder = channel_layout.folder_of(BASE, release)
            manifest_info = self._info(updater, f"{folder}/{MANIFEST}")
            manifest = self._manifest(updater, manifest_info, release)
            infos = {name: self._info(updater, f"{folder}/{name}") for name in manifest.files}
            target = self._folder / BASE

            def check(made: Path) -> None:
                if verify_base_package(made) != manifest:
                    raise Refused(f"{self._channel}: {MANIFEST} changed while it was read; try again")

            downloaded = self._install(updater, target, infos | {MANIFEST: manifest_info}, check)
        return Pulled(BASE, release, manifest.version, False, target, downloaded)

    # -- what the channel says -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self) -> Iterator[Updater]:
        """A client with the channel's newest metadata; one process at a time."""
        url, fetcher = open_transport(self._channel)
        trusted = self._state / "metadata"
        trusted.mkdir(parents=True, exist_ok=True)
        with FileLock(self._state / "lock"):
            with refusing(self._channel, "its metadata", _MIXED):
                updater = Updater(
                    str(trusted),
                    f"{url}/{channel_layout.METADATA}",
                    target_base_url=f"{url}/{channel_layout.TARGETS}",
                    fetcher=fetcher,
                    bootstrap=self._bootstrap(trusted),
                )
                updater.refresh()
            yield updater

    def _bootstrap(self, trusted: Path) -> bytes | None:
        """The root to begin with; None for the one that the device trusts already."""
        if self._root is not None:
            try:
                return self._root.read_bytes()
            except OSError as error:
                raise FactoryError(f"{self._root}: {error.strerror}; name the root that came with the device") from None
        if not (trusted / "root.json").exists():
            raise FactoryError(f"{self._folder}: trusts no channel yet; name the root that came with it with --root")
        return None

    def _info(self, updater: Updater, path: str) -> TargetFile:
        with refusing(self._channel, f"its metadata for {path}", _MIXED):
            info = updater.get_targetinfo(path)
        if info is None:
            raise Refused(f"{self._channel}: {path} is not signed for by whoever may sign it")
        return info

    def _pointer(self, updater: Updater, feature: str, release: str | None) -> Pointer:
        path = pointer_path(feature, release or "")
        with refusing(self._channel, f"its metadata for {path}", _MIXED):
            info = updater.get_targetinfo(path)
        if info is None:
            what = f"base release {release[:12]}" if release else "devices"
            raise FactoryError(f"{self._channel}: nothing of {feature} for {what}; was it promoted there?")
        try:
            pointer = Pointer.model_validate_json(self._small(updater, info))
        except ValidationError as error:
            raise Refused(f"{self._channel}: {path} is no pointer ({error.errors()[0]['msg']})") from None
        if pointer.feature != feature or (release and pointer.base_release != release):
            raise Refused(
                f"{self._channel}: {path} speaks of {pointer.feature} for base release {pointer.base_release[:12]}, "
                "which is not what was asked for"
            )
        return pointer

    def _manifest(self, updater: Updater, info: TargetFile, release: str) -> Manifest:
        manifest = read_manifest(self._small(updater, info), f"{self._channel}: {info.path}")
        if manifest.base_release != release:
            raise Refused(f"{self._channel}: {info.path} is of base release {manifest.base_release[:12]}")
        return manifest

    def _require_meant(
        self, found: PackageMetadata, feature: str, release: str, version: int, digest: str, base: str | None
    ) -> None:
        """The package is the one that the pointer names, for this feature and the base release of this device."""
        where = f"{self._channel}: {feature} {version}"
        if found.base_release != release or (base and found.base_release_digest != base):
            raise Refused(f"{where}: made for base release {found.base_release[:12]}, another than this device's")
        if (found.feature, found.version, found.digest) != (feature, version, digest):
            raise Refused(f"{where}: the package is {found.feature} {found.version}, not what the pointer names")

    # -- what the device has -------------------------------------------------------------------------------------------

    def _installed_base(self) -> Manifest | None:
        path = self._folder / BASE / MANIFEST
        return read_manifest(path.read_bytes(), str(path)) if path.is_file() else None

    def _base_of_device(self, base: Manifest | None, named: str | None) -> str:
        """Key of the base release that is installed here, else of the one that was named."""
        if base is None and named is None:
            raise FactoryError(f"{self._folder}: no base release yet; pull `{BASE}` first, or name one with --base")
        if base is not None and named not in (None, base.base_release):
            raise FactoryError(
                f"{self._folder}: has base release {base.base_release[:12]}, an adapter for another would not fit; "
                "pull that base release first"
            )
        return base.base_release if base else checked_release(named or "")

    def _device_id(self) -> str:
        if self._id is not None:
            return self._id
        path = self._state / "device-id"
        if not path.is_file():
            write_atomically(path, secrets.token_hex(16).encode())
        return path.read_text("utf-8")

    def _small(self, updater: Updater, info: TargetFile) -> bytes:
        """The content of a target that is read, not kept."""
        path = self._state / "reading"
        self._download(updater, info, path)
        try:
            return path.read_bytes()
        finally:
            path.unlink()

    def _install(
        self, updater: Updater, target: Path, infos: dict[str, TargetFile], check: Callable[[Path], None]
    ) -> int:
        """Let `target` hold these files, checked, and nothing else; returns how many bytes were downloaded."""
        former = target.with_name(f".{target.name}.old")
        if former.exists() and not target.exists():
            former.rename(target)  # killed between the two renames below
        if _holds(target, infos, check):
            return 0
        making = target.with_name(f".{target.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        total = sum(info.length for info in infos.values())
        try:
            with track(f"pull {target.name}", total / 1e6) as step:
                for name, info in infos.items():
                    (making / name).parent.mkdir(parents=True, exist_ok=True)
                    self._download(updater, info, making / name)
                    step.advance(info.length / 1e6, note="MB")
            check(making)
            shutil.rmtree(former, ignore_errors=True)
            if target.exists():
                target.rename(former)
            making.rename(target)
            shutil.rmtree(former, ignore_errors=True)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return total

    def _download(self, updater: Updater, info: TargetFile, path: Path) -> None:
        with refusing(self._channel, info.path, "not the bytes that were signed"):
            updater.download_target(info, str(path))


def _holds(folder: Path, infos: dict[str, TargetFile], check: Callable[[Path], None]) -> bool:
    """Whether a folder holds these targets already, and nothing else."""
    try:
        for name, info in infos.items():
            with (folder / name).open("rb") as file:
                info.verify_length_and_hashes(file)
        check(folder)
    except (OSError, exceptions.LengthOrHashMismatchError, FactoryError):
        return False
    return True
