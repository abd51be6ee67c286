"""TUF metadata as this channel uses it: periods of validity, versions, checks against whoever delegates, signatures.

Source: The Update Framework specification 1.0, by python-tuf. Notable choices:
- Versions come from the clock (milliseconds since 1970, or the former version plus one): devices that knew a channel
  which was moved, restored from a backup or published anew do not take it for a rollback. Roots count 1, 2, 3.
- Metadata that was read back is verified like on a device before anything is built on it: whoever can write to the
  store, and has no key, cannot have the publisher sign for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from adapters.device.channel_layout import METADATA, delegated_paths
from infra.errors import FactoryError
from registry.chain import Head

TIMESTAMP_FILE = f"{METADATA}/timestamp.json"
ONLINE_ROLES = (Targets.type, Snapshot.type, Timestamp.type)
# How long a signature is good for. What is not renewed in time, devices refuse: that bounds how long a stolen or frozen
# channel can keep them on an old state.
PERIODS = {
    Root.type: timedelta(days=365),
    Targets.type: timedelta(days=180),
    Snapshot.type: timedelta(days=7),
    Timestamp.type: timedelta(days=7),
}
_FEATURE_PERIOD = timedelta(days=180)
# Fields of ours in the snapshot, which TUF leaves to the publisher: the ledger's heads, and when each role expires.
_LEDGER = "ledger_heads"
_EXPIRES = "expires"

Kind = TypeVar("Kind", bound=Signed)


@dataclass
class State:
    """One consistent state of the channel, verified; `tag` is that of its timestamp, None if nothing is published yet.

    `roles` are those of features that were read so far.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    expires: datetime
    tag: str | None
    roles: dict[str, Metadata[Targets]] = field(default_factory=dict)

    @property
    def heads(self) -> dict[str, Head]:
        """The ledger's heads that the snapshot was signed with."""
        found: Mapping[str, Mapping[str, str]] = self.snapshot.signed.unrecognized_fields.get(_LEDGER, {})
        return {feature: Head(int(head["number"]), head["hash"]) for feature, head in found.items()}

    @property
    def expiries(self) -> dict[str, datetime]:
        """When the signature of each role ends, by the role's name."""
        found = {
            Root.type: self.root.signed.expires,
            Snapshot.type: self.snapshot.signed.expires,
            Timestamp.type: self.expires,
        }
        for name, meta in self.snapshot.signed.meta.items():
            found[name.removesuffix(".json")] = datetime.fromisoformat(meta.unrecognized_fields[_EXPIRES])
        return found

    @property
    def delegated(self) -> list[str]:
        """Names of the features' roles."""
        delegations = self.targets.signed.delegations
        return list(delegations.roles or {}) if delegations else []


def key_of(name: str, version: int) -> str:
    """Where a version of a role's metadata lies in the store."""
    return f"{METADATA}/{version}.{name}.json"


def next_version(before: int, now: datetime) -> int:
    """The version that follows `before`."""
    return max(before + 1, int(now.timestamp() * 1000))


def period_of(name: str) -> timedelta:
    """How long a role's signature is good for."""
    return PERIODS.get(name, _FEATURE_PERIOD)


def is_due(name: str, expires: datetime, now: datetime) -> bool:
    """Whether a signature has less than half of its time left."""
    return expires - now < period_of(name) / 2


def empty_targets(now: datetime) -> Metadata[Targets]:
    """The top-level targets of a new channel: delegations only, none yet."""
    return Metadata(Targets(expires=now + PERIODS[Targets.type], delegations=Delegations({}, {})))


def meta_of(signed: Signed, content: bytes) -> MetaFile:
    """What the snapshot, or the timestamp, states about a file of metadata."""
    meta = MetaFile.from_data(signed.version, content, ["sha256"])
    meta.unrecognized_fields[_EXPIRES] = signed.expires.isoformat()
    return meta


def make_snapshot(version: int, now: datetime, meta: Mapping[str, MetaFile], heads: Mapping[str, Head]) -> Snapshot:
    """A snapshot of all roles' versions that anchors the ledger's heads."""
    ledger = {feature: head._asdict() for feature, head in sorted(heads.items())}
    return Snapshot(version, None, now + PERIODS[Snapshot.type], dict(meta), {_LEDGER: ledger})


def delegate(targets: Targets, name: str, signer: CryptoSigner) -> None:
    """Let a key, and no other, sign for the paths of a feature's role."""
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    for keyid in list(targets.delegations.roles[name].keyids) if name in targets.delegations.roles else []:
        targets.revoke_key(keyid, name)
    targets.delegations.roles[name] = DelegatedRole(name, [], 1, True, delegated_paths(name))
    targets.add_key(signer.public_key, name)


def signed_bytes(name: str, signed: Signed, signers: Sequence[CryptoSigner], delegator: Root | Targets) -> bytes:
    """Metadata as a file, signed and checked as a device would.

    Raises:
        FactoryError: the keys are not those that the delegator names.
    """
    metadata = Metadata(signed)
    content = metadata.signed_bytes
    for signer in signers:
        signature = signer.sign(content)
        metadata.signatures[signature.keyid] = signature
    try:
        delegator.verify_delegate(name, content, metadata.signatures)
    except RepositoryError:
        raise FactoryError(
            f"the key for {name} is not the one that this channel names; bring the keys of the workspace that "
            "rotated it last"
        ) from None
    return metadata.to_bytes()


def parsed(kind: type[Kind], content: bytes, where: str) -> Metadata[Kind]:
    """Metadata of a kind from a file, not yet verified.

    Raises:
        FactoryError: it is none.
    """
    try:
        metadata = Metadata.from_bytes(content)
    except RepositoryError as error:
        raise damaged(where, error) from None
    if not isinstance(metadata.signed, kind):
        raise damaged(where, f"it is {metadata.signed.type}, not {kind.type}")
    return metadata


def verified(
    kind: type[Kind], name: str, content: bytes, meta: MetaFile | None, delegator: Root | Targets, where: str
) -> Metadata[Kind]:
    """Metadata from a file, with the length, hash and version that `meta` states, signed as the delegator demands.

    Raises:
        FactoryError: it is not.
    """
    metadata = parsed(kind, content, where)
    try:
        if meta is not None:
            meta.verify_length_and_hashes(content)
        delegator.verify_delegate(name, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise damaged(where, error) from None
    if meta is not None and metadata.signed.version != meta.version:
        raise damaged(where, f"it is version {metadata.signed.version}, not {meta.version}")
    return metadata


def damaged(where: str, reason: object) -> FactoryError:
    """The error for metadata that this channel's keys have not signed so."""
    return FactoryError(
        f"{where}: not what this channel's keys signed ({reason}); put it back, or remove {TIMESTAMP_FILE}: then the "
        "next decision publishes everything anew from the ledger"
    )


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)
