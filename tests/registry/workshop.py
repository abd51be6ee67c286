"""A ledger, a channel and devices that follow it, without MLflow: real rows, packages, keys and signatures."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from adapters.device.client import Device
from adapters.device.package import verify_package
from infra.canonical import digest, digest_folder
from registry.channel import Channel, Publication, open_channel
from registry.channel.metadata import utc_now
from registry.decisions import BASE, Action, Decision, Row
from registry.ledger import Ledger
from tests.registry.samples import ACTOR, make_lineage, make_package, make_release

SUMMARIES, WRITING = "summarization", "writing"


class Workshop:
    """What is published lies in `folder/channel`, the keys in `folder/keys`."""

    def __init__(self, folder: Path, location: str = "", now: Callable[[], datetime] = utc_now) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.location = location or str(folder / "channel")
        self.now = now

    @property
    def channel(self) -> Channel:
        """The channel as the next command opens it."""
        channel = open_channel(self.location, self.folder / "keys")
        channel.repository.now = self.now
        return channel

    @property
    def root(self) -> Path:
        """The first root, which devices are given."""
        return self.folder / "keys" / "roots" / "1.root.json"

    def device(self, name: str = "device", channel: str = "", **options: object) -> Device:
        """A device that follows the channel; the same name is the same device."""
        return Device(channel or self.location, self.folder / name, self.root, **options)  # type: ignore[arg-type]

    def heads(self) -> dict[str, tuple[int, str]]:
        """The ledger's heads."""
        return {row.feature: (row.number, row.hash) for row in self.ledger.rows()}

    def release(self, name: str = "one") -> tuple[str, Path]:
        """Publish a base release; returns its key and folder."""
        key, folder = make_release(self.folder / "releases" / name, name)
        row = self.decide(BASE, key, 1 if name == "one" else 2, digest_folder(folder))
        self.channel.publish([Publication(row, row, folder)], self.heads())
        return key, folder

    def package(self, release: tuple[str, Path], feature: str = SUMMARIES, version: int = 1) -> tuple[Path, str]:
        """Build a version's package, or take the one that is there; returns its folder and digest."""
        folder = self.folder / "built" / feature / release[0][:8] / str(version)
        lineage = make_lineage(release[0], f"{feature} {version}")
        if not folder.exists():
            make_package(folder, release, lineage, version, feature)
        return folder / "package", verify_package(folder / "package").digest

    def promote(self, release: tuple[str, Path], feature: str = SUMMARIES, version: int = 1) -> Row:
        """Publish an adapter."""
        publication = self.decided(release, feature, version)
        self.channel.publish([publication], self.heads())
        return publication.production

    def decided(self, release: tuple[str, Path], feature: str = SUMMARIES, version: int = 1) -> Publication:
        """An adapter's promotion in the ledger, not yet published."""
        package, content = self.package(release, feature, version)
        row = self.decide(feature, release[0], version, content)
        return Publication(row, row, package)

    def decide(
        self, feature: str, key: str, version: int, package: str, action: Action = "promote", share: float | None = None
    ) -> Row:
        """Append a row to the ledger."""
        lineage = {"data": digest([feature, version])}
        decision = Decision(
            feature=feature, base_release=key, action=action, version=version, lineage=lineage, package=package,
            actor=ACTOR, reason="test", share=share,
        )  # fmt: skip
        return self.ledger.append(decision)
