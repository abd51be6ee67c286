"""A registry on the real MLflow, its empty database made once per session and copied for each test."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.device.client import Device
from adapters.lineage import Lineage
from registry import decisions
from registry.catalog import Catalog, RunContent
from registry.channel import open_channel
from registry.ledger import Ledger
from registry.projection import Registry
from registry.promotion import promote_release
from registry.versions import Version
from tests.registry.samples import ACTOR, make_lineage, make_package, make_release, make_report, release_lineage


@dataclass
class Place:
    """A registry in a folder, and what tests do with it."""

    folder: Path
    registry: Registry
    uri: str

    def device(self) -> Device:
        """A device that follows this registry's channel."""
        return Device(str(self.folder / "channel"), self.folder / "device", self.folder / "keys/roots/1.root.json")

    def release(self, name: str = "one", promote: bool = True, passed: bool = True) -> tuple[str, Path]:
        """Register a base release, and make it current."""
        key, folder = make_release(self.folder / "releases" / name, name)
        run = self.registry.catalog.log_run("base-release", name, RunContent())
        self.registry.catalog.register_release(run, folder, release_lineage(name), make_report("base", passed))
        if promote:
            promote_release(self.registry, key, actor=ACTOR, reason="test")
        return key, folder

    def version(self, release: tuple[str, Path], data: str = "one", passed: bool = True) -> Version:
        """Register an adapter for summarization that was built from `data` over a release."""
        lineage = make_lineage(release[0], data)
        folder = self.folder / "built" / lineage.key
        if not folder.exists():
            make_package(folder, release, lineage, seed=len(data))
        return self.register(folder / "package", lineage, passed)

    def register(self, package: Path, lineage: Lineage, passed: bool = True) -> Version:
        """Register a package with a verdict that was reached against what is in production."""
        catalog = self.registry.catalog
        rows = self.registry.ledger.rows("summarization")
        champion = decisions.champion(rows, lineage.build["base_release"], None)
        run = catalog.log_run("summarization", "run", RunContent())
        against = champion.package if champion else None
        return catalog.register_adapter("summarization", run, package, lineage, make_report(passed=passed), against)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Catalog(f"sqlite:///{path}", path.parent.as_uri(), path.parent).releases()
    return path


@pytest.fixture(scope="session")
def open_place(empty_mlflow: Path) -> Callable[..., Place]:
    """Opens a registry in a folder, a new one or, as the next command would, the one that is there."""

    def opened(folder: Path, ledger_url: str = "") -> Place:
        folder.mkdir(exist_ok=True)
        database = folder / "mlflow.db"
        if not database.exists():
            shutil.copyfile(empty_mlflow, database)
        uri = f"sqlite:///{database}"
        parts = (
            Ledger(ledger_url or f"sqlite:///{folder / 'ledger.db'}"),
            Catalog(uri, (folder / "files").as_uri(), folder / "downloads"),
            open_channel(folder / "channel", folder / "keys"),
        )
        return Place(folder, Registry(*parts), uri)

    return opened


@pytest.fixture
def place(tmp_path: Path, open_place: Callable[[Path], Place]) -> Place:
    """An empty registry."""
    return open_place(tmp_path / "registry")
