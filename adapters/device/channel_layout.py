"""How a channel is laid out: the names of its roles and targets, and its pointers. Publisher and device share it.

    metadata/timestamp.json                              the one file that changes
    metadata/<N>.{root,snapshot,targets}.json            TUF's roles, by version
    metadata/<N>.feature-<feature>.json                  one delegated role per feature, and one for `base`
    targets/base/production.json                         pointer: the current base release
    targets/base/<release>/...                           a base release's package
    targets/<feature>/<release>/production.json          pointer: the version that serves a base release
    targets/<feature>/<release>/<version>/...            an adapter's package

`<release>` is the first 16 digits of the base release's key. Every target carries its SHA-256 in front of its file name
(TUF's consistent snapshots), so a target's file never changes either.
"""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.canonical import digest
from infra.errors import FactoryError

METADATA = "metadata"
TARGETS = "targets"
# The reserved feature under which base releases are published.
BASE = "base"
POINTER = "production.json"
_ROLE_PREFIX = "feature-"
RELEASE_DIGITS = 16

_FEATURE = re.compile(r"^[a-z][a-z0-9-]{0,62}$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# TUF's path patterns name the number of segments; a base release's files lie at most so deep below its folder.
_DEPTH = 4
_HEX_DIGITS = 13  # of a digest, which a float holds exactly


class Rollout(BaseModel):
    """A version that a share of the devices gets, between 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(gt=0)
    package: str = Field(pattern=_SHA256.pattern)
    share: float = Field(gt=0, le=1)


class Pointer(BaseModel):
    """Which version a device with some base release is to use.

    `package` is the digest of an adapter's package; of `base`, of the release in the registry. `number` and
    `row` are number and hash of the ledger row that the pointer follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    feature: str = Field(pattern=_FEATURE.pattern)
    base_release: str = Field(pattern=_SHA256.pattern)
    version: int = Field(gt=0)
    package: str = Field(pattern=_SHA256.pattern)
    number: int = Field(gt=0)
    row: str = Field(pattern=_SHA256.pattern)
    rollout: Rollout | None = None

    def version_for(self, device: str) -> tuple[int, str]:
        """Version and package digest for the device with this id.

        A device's place between 0 and 1 follows from its id and the version that is rolled out. It gets the version
        once the share is above its place, keeps it when the share grows, and is early for one and late for another.
        """
        if self.rollout is not None:
            place = digest([self.feature, self.base_release, self.rollout.version, device])[:_HEX_DIGITS]
            if int(place, 16) / 16**_HEX_DIGITS < self.rollout.share:
                return self.rollout.version, self.rollout.package
        return self.version, self.package


def role_name(feature: str) -> str:
    """Name of the delegated role that signs for a feature."""
    return f"{_ROLE_PREFIX}{checked_feature(feature)}"


def delegated_paths(role: str) -> list[str]:
    """The paths that a delegated role may sign for: its feature's own folder, nothing else."""
    feature = role.removeprefix(_ROLE_PREFIX)
    first = 1 if feature == BASE else 2
    return [f"{feature}/" + "/".join("*" * depth) for depth in range(first, _DEPTH + 1)]


def pointer_path(feature: str, base_release: str) -> str:
    """Target of a feature's pointer for a base release; `base` has one for the whole channel."""
    if feature == BASE:
        return f"{BASE}/{POINTER}"
    return f"{folder_of(feature, base_release)}/{POINTER}"


def folder_of(feature: str, base_release: str) -> str:
    """Folder of everything that a feature has for a base release (of `base`: the release's package)."""
    return f"{checked_feature(feature)}/{checked_release(base_release)[:RELEASE_DIGITS]}"


def package_path(feature: str, base_release: str, version: int) -> str:
    """Folder of an adapter's package."""
    return f"{folder_of(feature, base_release)}/{version}"


def checked_feature(feature: str) -> str:
    """The name, if it is one.

    Raises:
        FactoryError: it is no feature's name.
    """
    if not _FEATURE.fullmatch(feature):
        raise FactoryError(f"{feature!r} is no feature's name: small letters, digits and '-', a letter first")
    return feature


def checked_release(base_release: str) -> str:
    """The key, if it is one.

    Raises:
        FactoryError: it is no key.
    """
    if not _SHA256.fullmatch(base_release):
        raise FactoryError(f"{base_release!r} is no base release: write the 64 digits of its key (`factory base show`)")
    return base_release


def checked_file(name: str) -> str:
    """The relative path of a package's file, if it stays in the package's folder on every system.

    Raises:
        FactoryError: it does not.
    """
    parts = name.split("/")
    if len(parts) > _DEPTH - 1 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise FactoryError(
            f"{name!r} is no path inside a package: up to {_DEPTH - 1} names of letters, digits, -, _, ."
        )
    return name
