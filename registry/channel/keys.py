"""The private keys of a channel's roles, and the roots that devices trust: files of the workspace, or of another disk.

    keys/<role>.pem          Ed25519, PKCS #8, mode 0600
    keys/<role>.next.pem     a rotation that is under way, or was killed
    keys/roots/<N>.root.json every root, by version; the last one is what a new device is given
    keys/roots/seen.json     the newest state of the channel that was seen, so that an older one is noticed

`root.pem` is needed only to start a channel, to rotate the keys of top-level roles and to renew the root: move it to a
disk that is kept offline, and name it with `--root-key` when it is needed.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infra.errors import FactoryError
from infra.workspace import write_atomically
from registry.chain import Head

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

ROOT = "root"
_ROLE = re.compile(r"root|targets|snapshot|timestamp|feature-[a-z][a-z0-9-]{0,62}")
_ROOT_FILE = re.compile(r"([1-9][0-9]*)\.root\.json")
_OTHERS_READ = 0o007


class Seen(NamedTuple):
    """The newest state of a channel that was seen: where, the version of its snapshot, and the ledger's heads."""

    place: str
    version: int
    heads: Mapping[str, Head]


class Keys:
    """The keys in a folder; `root_key` names the file of the root's key if it is elsewhere."""

    def __init__(self, folder: Path, root_key: Path | None = None) -> None:
        self._folder = folder
        self._root_key = root_key

    @property
    def root_file(self) -> Path:
        """The root that a new device is given.

        Raises:
            FactoryError: there is none yet.
        """
        versions = self.root_versions()
        if not versions:
            raise FactoryError(f"{self._folder}: no root yet; `factory init` makes one")
        return self._root_path(versions[-1])

    def root_versions(self) -> list[int]:
        """Versions of the roots that are kept here, in order."""
        found = (_ROOT_FILE.fullmatch(path.name) for path in (self._folder / "roots").glob("*"))
        return sorted(int(match[1]) for match in found if match)

    def read_root(self, version: int) -> bytes:
        """A root by version."""
        return self._root_path(version).read_bytes()

    def keep_root(self, version: int, content: bytes) -> None:
        """Keep a root that has been verified."""
        write_atomically(self._root_path(version), content)

    def seen(self) -> Seen | None:
        """The newest state of the channel that was seen, None if none was.

        Raises:
            FactoryError: the file that says so was damaged.
        """
        try:
            place, version, heads = json.loads(self._seen.read_bytes())
            return Seen(place, int(version), {feature: Head(*head) for feature, head in heads.items()})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, AttributeError):
            raise FactoryError(f"{self._seen}: damaged; bring it back from a backup of the keys") from None

    def keep_seen(self, place: str, version: int, heads: Mapping[str, Head]) -> None:
        """Remember a verified state, unless a newer one was seen there; heads only ever move forward."""
        known = self.seen()
        if known is not None and known.place == place and known.version >= version:
            return
        before = known.heads if known else {}
        newer = {name: head for name, head in heads.items() if name not in before or before[name].number < head.number}
        self._seen.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._seen, json.dumps([place, version, {**before, **newer}]).encode())

    def has(self, role: str) -> bool:
        """Whether the key of a role is here."""
        return self._path(role).is_file()

    def signers(self, role: str) -> "list[CryptoSigner]":
        """What signs for a role: its key, and beside it the next one while it is rotated.

        Raises:
            FactoryError: the key is not here, is no key, or every user of this machine can read it.
        """
        paths = [self._path(role), self._next(role)] if self._next(role).is_file() else [self._path(role)]
        return [_load(path) for path in paths]

    def make(self, role: str) -> "CryptoSigner":
        """The key of a role, made if it is not here."""
        return _load_or_make(self._path(role))

    def make_next(self, role: str) -> "CryptoSigner":
        """The key that is to take the place of a role's key; the same one until `take_next`."""
        return _load_or_make(self._next(role))

    def take_next(self, role: str) -> None:
        """Let the next key be the role's key; the former one is gone, unless it lies outside the folder."""
        self._next(role).replace(self._folder / f"{role}.pem")

    @property
    def _seen(self) -> Path:
        return self._folder / "roots" / "seen.json"

    def _path(self, role: str) -> Path:
        if role == ROOT and self._root_key is not None:
            return self._root_key
        if not _ROLE.fullmatch(role):
            raise FactoryError(f"{role!r} is no role: root, targets, snapshot, timestamp, or feature-NAME")
        return self._folder / f"{role}.pem"

    def _next(self, role: str) -> Path:
        return self._folder / f"{role}.next.pem"

    def _root_path(self, version: int) -> Path:
        return self._folder / "roots" / f"{version}.root.json"


def _load_or_make(path: Path) -> "CryptoSigner":
    from securesystemslib.signer import CryptoSigner

    if path.is_file():
        return _load(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    making = path.with_name(f".{path.name}.new")
    making.unlink(missing_ok=True)
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(signer.private_bytes)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
    return signer


def _load(path: Path) -> "CryptoSigner":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    if not path.is_file():
        where = "; bring it, or name it with --root-key" if path.stem == ROOT else "; bring the keys of this channel"
        raise FactoryError(f"{path}: no such key{where}")
    if path.stat().st_mode & _OTHERS_READ:
        raise FactoryError(f"{path}: every user of this machine can read this key; `chmod 600` it, and rotate it")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise FactoryError(f"{path}: no private key in PEM without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FactoryError(f"{path}: not an Ed25519 key")
    return CryptoSigner(key)
