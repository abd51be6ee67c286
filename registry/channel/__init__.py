"""The channel: a TUF repository that devices download from, in a folder or in S3."""

import re
from pathlib import Path

from infra.errors import FactoryError
from registry.channel.keys import Keys
from registry.channel.publisher import Channel, Publication
from registry.channel.s3 import S3Store
from registry.channel.stores import FolderStore, Store

_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?")

__all__ = ["Channel", "Publication", "open_channel"]


def open_channel(location: str | Path, keys: Path, root_key: Path | None = None) -> Channel:
    """The channel at a location, a folder or `s3://bucket/prefix`, with its keys in a folder.

    Nothing is read or made before the first call; `root_key` names the file of the root's key if it is not among them.

    Raises:
        FactoryError: the location names no bucket.
    """
    return Channel(_store(location), Keys(keys, root_key))


def _store(location: str | Path) -> Store:
    if str(location).startswith("s3:"):
        found = _BUCKET.fullmatch(str(location))
        if not found:
            raise FactoryError(f"channel {location}: write s3://bucket/prefix, or a folder")
        return S3Store(found[1], (found[2] or "").strip("/"))
    return FolderStore(Path(location).expanduser().resolve())
