"""Canonical JSON and SHA-256 digests: how everything that has a key or an address gets it."""

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_FLAT = frozenset((str, int, float, bool, type(None)))


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: keys sorted by code point, no spaces, UTF-8, finite numbers only.

    Follows RFC 8785 but for the order of keys beyond the Basic Multilingual Plane (there by UTF-16 unit) and for its
    number format, which Python's shortest `repr` already makes unique.

    Raises:
        ValueError: for NaN, infinities, keys that are no text, lone surrogates and values that JSON cannot hold.
    """
    _require_text_keys(value)
    try:
        text = _ENCODER.encode(value)
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from error
    return text.encode("utf-8")


def _require_text_keys(value: Any) -> None:
    """Refuse keys that `json` turns into text only after sorting: such a value's form changes once it is reloaded."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"not a JSON value: key {key!r} is no text")
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    if not _FLAT.issuperset(map(type, value)):  # most values are flat, and this is asked very often
        for below in value:
            _require_text_keys(below)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def digest_folder(folder: Path) -> str:
    """Digest of a folder's content: every file's relative POSIX path and SHA-256, in path order.

    Raises:
        NotADirectoryError: there is no such folder; that is not the same as an empty one.
        ValueError: the folder holds a symbolic link, whose target is not the folder's content.
    """
    return digest(file_digests(folder))


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder by relative POSIX path.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: the folder holds a symbolic link.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    digests: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link: content is addressed by its bytes, copy the file instead")
        if path.is_file():
            digests[path.relative_to(folder).as_posix()] = digest_file(path)
    return digests
