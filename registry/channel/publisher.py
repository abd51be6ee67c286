"""Publishing what the ledger decided: packages, pointers to them, and the ledger's heads, in one signed step.

A feature's role lists what is in production, or rolled out, for each base release, and nothing else: a version that was
taken out is no longer signed for, though its files stay until `pruning.py` removes them. Base releases stay listed: a
device may need an earlier one.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from tuf.api.metadata import TargetFile

from adapters.device.base_package import MANIFEST, make_manifest
from adapters.device.channel_layout import (
    BASE,
    POINTER,
    Pointer,
    Rollout,
    folder_of,
    package_path,
    pointer_path,
    role_name,
)
from adapters.device.package import METADATA, stamp_version
from infra.errors import CheckFailed, FactoryError
from registry.chain import Head
from registry.channel.keys import Keys
from registry.channel.metadata import State
from registry.channel.repository import Draft, Repository, target_key
from registry.channel.stores import Store
from registry.decisions import Row


@dataclass(frozen=True)
class Publication:
    """What devices with one base release are to get of a feature.

    `production` is the row that put a version in production and `folder` that version's package (of `base`: the
    release's folder); `rollout` the row that gives a share of the devices another version, with its package; `follows`
    the last row that had a say.
    """

    follows: Row
    production: Row
    folder: Path
    rollout: tuple[Row, Path] | None = None

    def pointer(self) -> Pointer:
        """The pointer that says so."""
        row, rollout = self.production, None
        if self.rollout is not None:
            staged = self.rollout[0]
            assert staged.share is not None
            rollout = Rollout(version=staged.version, package=staged.package, share=staged.share)
        return Pointer(
            feature=row.feature,
            base_release=row.base_release,
            version=row.version,
            package=row.package,
            number=self.follows.number,
            row=self.follows.hash,
            rollout=rollout,
        )


class Channel:
    """The channel in a store, signed with the keys of a folder."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self.repository = Repository(store, keys)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self.repository.store.place

    def start(self) -> None:
        """Make keys and publish an empty channel, unless that was done."""
        self.repository.commit(lambda draft, state: None)

    def anchored_heads(self) -> dict[str, Head]:
        """Number and hash of each feature's last ledger row that the channel was signed with.

        Raises:
            FactoryError: the channel was changed by somebody without its keys.
        """
        state = self.repository.state()
        return state.heads if state else {}

    def seen_heads(self) -> Mapping[str, Head]:
        """The newest heads that were ever seen from here, whatever became of the state that had them."""
        seen = self.repository.keys.seen()
        return seen.heads if seen else {}

    def setback(self) -> str | None:
        """What is wrong with the present state if a newer one was seen here, else None.

        Raises:
            FactoryError: the channel was changed by somebody without its keys.
        """
        state, seen = self.repository.state(), self.repository.keys.seen()
        if seen is None or seen.place != self.place:
            return None
        if state is None:
            return f"{self.place}: timestamp.json is gone; it was at version {seen.version}"
        version = state.snapshot.signed.version
        if version < seen.version:
            return f"{self.place}: a former timestamp.json was brought back, of version {version}, not {seen.version}"
        return None

    def pointers(self) -> list[Pointer]:
        """Every pointer that is published, `base` first."""
        state = self.repository.published()
        found = []
        for name in state.delegated:
            role = self.repository.role(state, name)
            targets = role.signed.targets if role else {}
            found += [self._read(info) for path, info in targets.items() if path.endswith(f"/{POINTER}")]
        return sorted(found, key=lambda one: (one.feature != BASE, one.feature, one.base_release))

    def pointer(self, feature: str, base_release: str) -> Pointer | None:
        """What a feature's pointer for a base release (of `base`: the channel's) says, None if there is none.

        Raises:
            FactoryError: the channel was changed by somebody without its keys.
        """
        state = self.repository.state()
        role = self.repository.role(state, role_name(feature)) if state else None
        return self._pointer(role.signed.targets if role else {}, feature, base_release)

    def publish(
        self, publications: Sequence[Publication], heads: Mapping[str, tuple[int, str]], thorough: bool = False
    ) -> list[str]:
        """Publish packages and point to them, and anchor the ledger's heads: devices see all of it or nothing.

        Doing so again changes nothing. With `thorough`, files that lie there are read, and replaced if they are other
        ones, whatever their metadata say. Returns the targets whose files were not there, or were not whole.

        Raises:
            CheckFailed: the channel follows a later row already, or one that the ledger does not have.
            FactoryError: a package is damaged or is not the one that the ledger names, or the store refuses.
        """
        written: list[str] = []
        prepared: list[tuple[Pointer, dict[str, TargetFile]]] = []
        with tempfile.TemporaryDirectory() as scratch:
            for number, publication in enumerate(publications):
                pointer = publication.pointer()
                files = _files_of(publication, pointer, Path(scratch) / str(number))
                infos = {target: TargetFile.from_file(target, str(path)) for target, path in files.items()}
                written += [target for target, info in infos.items() if self._add(info, files[target], thorough)]
                prepared.append((pointer, infos))

        def change(draft: Draft, state: State) -> None:
            _anchor(draft, heads)
            for pointer, infos in prepared:
                self._point(draft, state, pointer, infos)

        self.repository.commit(change)
        return written

    def _add(self, info: TargetFile, path: Path, thorough: bool) -> bool:
        """Bring a file to the store under a name that carries its content; nothing names it yet."""
        store, key, sha256 = self.repository.store, target_key(info), info.hashes["sha256"]
        if thorough and store.digest(key) not in (None, sha256):
            store.remove(key)
        return store.add_file(key, path, sha256)

    def _point(self, draft: Draft, state: State, pointer: Pointer, infos: Mapping[str, TargetFile]) -> None:
        name = role_name(pointer.feature)
        role = self.repository.role(state, name)
        present = draft.targets.get(name, role.signed.targets if role else {})
        before = self._pointer(present, pointer.feature, pointer.base_release)
        if before is not None and before.number > pointer.number:
            raise CheckFailed(
                f"{pointer.feature}: the channel follows decision {before.number} already, not {pointer.number}; "
                "run again"
            )
        own = f"{folder_of(pointer.feature, pointer.base_release)}/"
        kept = {path: info for path, info in present.items() if pointer.feature == BASE or not path.startswith(own)}
        wanted = kept | dict(infos)
        if wanted != present:
            draft.targets[name] = wanted

    def _pointer(self, targets: Mapping[str, TargetFile], feature: str, base_release: str) -> Pointer | None:
        path = pointer_path(feature, base_release)
        return self._read(targets[path]) if path in targets else None

    def _read(self, info: TargetFile) -> Pointer:
        try:
            return Pointer.model_validate_json(self.repository.target(info))
        except ValidationError as error:
            raise FactoryError(f"{info.path}: signed, but no pointer ({error.errors()[0]['msg']})") from None


def _files_of(publication: Publication, pointer: Pointer, scratch: Path) -> dict[str, Path]:
    """The files to publish by target: packages, stamped with their versions, and the pointer.

    Raises:
        FactoryError: a package is damaged, or is not the one that the ledger names.
    """
    scratch.mkdir()
    row = publication.production
    if row.feature == BASE:
        files = _release_files(publication.folder, row, scratch)
    else:
        files = _adapter_files(publication.folder, row, scratch)
        if publication.rollout is not None:
            staged, folder = publication.rollout
            files |= _adapter_files(folder, staged, scratch)
    written = scratch / POINTER
    written.write_text(json.dumps(pointer.model_dump(mode="json"), indent=2, sort_keys=True) + "\n", "utf-8")
    return files | {pointer_path(row.feature, row.base_release): written}


def _adapter_files(package: Path, row: Row, scratch: Path) -> dict[str, Path]:
    stamped = scratch / str(row.version)
    stamped.mkdir()
    metadata = stamp_version(package, stamped, row.version)
    if metadata.digest != row.package:
        raise FactoryError(f"{package}: not the package that the ledger names ({row.feature} {row.version}); run again")
    folder = package_path(row.feature, row.base_release, row.version)
    return {f"{folder}/{name}": stamped / name for name in (METADATA, *metadata.files)}


def _release_files(release_folder: Path, row: Row, scratch: Path) -> dict[str, Path]:
    manifest = make_manifest(release_folder, row.base_release, row.version, row.package)
    (scratch / MANIFEST).write_bytes(manifest.to_bytes())
    folder = folder_of(BASE, row.base_release)
    files = {f"{folder}/{name}": release_folder / name for name in manifest.files}
    return files | {f"{folder}/{MANIFEST}": scratch / MANIFEST}


def _anchor(draft: Draft, heads: Mapping[str, tuple[int, str]]) -> None:
    """Move the anchored heads forward to the ledger's."""
    for feature, (number, row) in heads.items():
        known = draft.heads.get(feature)
        if known is not None and known.number == number and known.hash != row:
            raise CheckFailed(
                f"{feature}: the channel follows another decision {number} than the ledger has; "
                "bring the ledger back from its backup"
            )
        if known is None or known.number < number:
            draft.heads[feature] = Head(number, row)
