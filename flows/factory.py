"""The factory of one workspace: opens each room when it is first needed, and reads what the plan compares."""

import getpass
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.data.overlay import effective_records, read_overlay
from adapters.lineage import Lineage, lineage_of
from adapters.palettization.assemble import read_manifest
from adapters.palettization.recipe import RELEASE_YAML, ReleaseRecipe, load_release_recipe
from adapters.palettization.stages import release_lineage
from adapters.records import Quarantined, Record, read_records
from adapters.synthesis.audit import expire
from flows.job import Job, Release, System
from infra.canonical import digest_file
from infra.dvc_data import DataRepo
from infra.errors import FactoryError
from infra.libraries import quieten
from infra.run_notes import RunNotes
from infra.settings import Settings, load_settings
from infra.supervision import Supervisor
from infra.workspace import KnownBase, Workspace
from registry.decisions import BASE
from registry.features import Feature, feature_names, find_features
from registry.ledger import Ledger

if TYPE_CHECKING:
    from infra.data_remote import DataRemote
    from registry.catalog import Catalog
    from registry.channel import Channel
    from registry.projection import Registry
    from registry.versions import Version


class Factory:
    """Everything that flows and commands need. Rooms with heavy libraries are opened by their first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workspace = Workspace(settings.home.expanduser().resolve())
        self._opened: dict[str, Feature] = {}

    @cached_property
    def features(self) -> dict[str, Feature]:
        """The features that are run, by name."""
        settings = self.settings
        self._opened = find_features(settings.features, settings.shipped_features, settings.profile)
        return self._opened

    def feature(self, name: str) -> Feature:
        """One feature. Recipes of others are not opened for it: what is wrong with them holds up no rollback of it.

        Raises:
            FactoryError: there is none of that name, or its recipe is wrong.
        """
        if name not in self._opened:
            settings = self.settings
            self._opened = self._opened | find_features(
                settings.features, settings.shipped_features, settings.profile, only=name
            )
        if name not in self._opened:
            raise FactoryError(f"no feature {name!r}; there are: {', '.join(self.features) or 'none'}")
        return self._opened[name]

    def require_known(self, name: str) -> None:
        """A feature that is run, or that the ledger has decisions about: what was decided needs no recipe.

        Raises:
            FactoryError: it is neither.
        """
        if name == BASE or self.ledger.head(name) is None:
            self.feature(name)

    def known(self, served: Collection[str]) -> dict[str, bool]:
        """The features that are run and those of `served`, by name, and whether each is run; no recipe is opened."""
        names = feature_names(self.settings.features, self.settings.shipped_features)
        return {name: name in names for name in (*names, *sorted(set(served) - {*names, BASE}))}

    @cached_property
    def ledger(self) -> Ledger:
        """The decisions."""
        return Ledger(self.settings.ledger_url or f"sqlite:///{self.workspace.root / 'ledger.db'}")

    @cached_property
    def catalog(self) -> "Catalog":
        """Runs and registered versions, in MLflow."""
        from registry.catalog import Catalog

        return Catalog(self.tracking_uri, self.artifacts, self.workspace.downloads)

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry store: a server, if there is one, else a database."""
        server = "" if self.mlflow_database is None else self.stack.serving().get("mlflow", "")
        return server.removesuffix("/health") or self.settings.mlflow_uri or str(self.mlflow_database)

    @property
    def mlflow_database(self) -> str | None:
        """The database that MLflow keeps its entries in, None if settings name a server that sees to it."""
        if self.settings.mlflow_uri.startswith(("http://", "https://", "databricks")):
            return None
        return self.settings.mlflow_uri or f"sqlite:///{self.workspace.root / 'mlflow.db'}"

    @property
    def artifacts(self) -> str:
        """Where the files of runs and versions go, as MLflow names places, unless a server keeps them."""
        place = self.settings.artifacts
        if place.startswith("s3://"):
            return place.rstrip("/")
        return (Path(place).expanduser() if place else self.workspace.artifacts).resolve().as_uri()

    @property
    def prefect_api_url(self) -> str:
        """The Prefect server that runs report to; empty if each run starts one of its own."""
        return self.settings.prefect_api_url or self.stack.serving().get("prefect", "").removesuffix("/health")

    @cached_property
    def stack(self) -> Supervisor:
        """The servers of this workspace on this machine."""
        return Supervisor(self.workspace.root / "stack")

    @cached_property
    def registry(self) -> "Registry":
        """Ledger, catalog and channel: where decisions are carried out."""
        from registry.projection import Registry

        return Registry(self.ledger, self.catalog, self.channel())

    def channel(self, root_key: Path | None = None) -> "Channel":
        """What devices download; `root_key` names the file of the root's key if it is kept elsewhere."""
        from registry.channel import open_channel

        return open_channel(self.settings.channel or self.workspace.channel, self.workspace.keys, root_key)

    @cached_property
    def actor(self) -> str:
        """Who decides: as settings say, else this machine's user."""
        return self.settings.actor or getpass.getuser()

    @cached_property
    def notes(self) -> RunNotes:
        """What earlier runs took, and what stopped them."""
        return RunNotes(self.workspace.root)

    @cached_property
    def data(self) -> DataRepo:
        """The versions of the features' records, in DVC."""
        return DataRepo(self.workspace.data)

    @property
    def data_remote(self) -> "DataRemote":
        """Where the data is shared with other workspaces.

        Raises:
            FactoryError: settings name no such place.
        """
        from infra.data_remote import DataRemote

        if not self.settings.data_remote:
            raise FactoryError("no place to share data; name a folder or s3://bucket/prefix in `data_remote`")
        return DataRemote(self.data, self.settings.data_remote)

    def records(self, name: str) -> tuple[list[Record], list[Quarantined]]:
        """A feature's records now: its corpus files, what was added, less what was removed; and rows that are none.

        Raises:
            FactoryError: a corpus file is missing or lies outside the feature's folder.
        """
        corpus, refused = self.corpus(name)
        overlay = read_overlay(self.data.folder / name)
        return effective_records(corpus, overlay.added, overlay.removed), [*refused, *overlay.refused]

    def corpus(self, name: str) -> tuple[list[Record], list[Quarantined]]:
        """The records of a feature's corpus files, and rows that are none.

        Raises:
            FactoryError: a corpus file is missing or lies outside the feature's folder.
        """
        feature = self.feature(name)
        corpus: dict[str, Record] = {}
        refused: list[Quarantined] = []
        for entry in feature.recipe.data.corpus:
            path = Path(os.path.realpath(feature.folder / entry))
            if not path.is_relative_to(feature.folder) or not path.is_file():
                raise FactoryError(
                    f"{feature.folder / 'recipe.yaml'}: data.corpus: {entry}: no such file in the folder"
                )
            records, bad = read_records(path)
            refused += bad
            for record in records:
                if corpus.setdefault(record.id, record) is not record:
                    refused.append(Quarantined(entry, f"id {record.id!r} is in another file", record.model_dump_json()))
        return list(corpus.values()), refused

    def evaluation_texts(self, name: str) -> list[tuple[str, str]]:
        """The texts that a feature's recipe keeps out of its training, each with the place where it stands: those of
        its evaluation sets and of its suites. People's verdicts hold no texts.

        Raises:
            FactoryError: a file is missing or cannot be read.
        """
        feature, suites = self.feature(name), self.suite_files(name)
        entries = feature.recipe.data.cleaning.evaluation_sets
        texts: list[tuple[str, str]] = []
        if entries:
            from adapters.data.convert import read_texts

            for entry in entries:
                texts += read_texts(feature.folder / Path(entry).expanduser())
        if suites:
            from adapters.evaluation.suites.texts import suite_texts

            for suite in sorted(suites):
                texts += suite_texts(dict(sorted(suites[suite].items())))
        return texts

    def chosen(self, names: Sequence[str]) -> list[str]:
        """The named features, all of them if none is named.

        Raises:
            FactoryError: a name is unknown.
        """
        return [self.feature(name).recipe.feature for name in names] or list(self.features)

    def lineage(self, name: str, release_key: str) -> Lineage:
        """The lineage that a run of this feature would have now."""
        return self._lineage(name, self.records(name)[0], release_key, self.evaluation_texts(name))

    def _lineage(
        self, name: str, records: Sequence[Record], release_key: str, texts: Sequence[tuple[str, str]]
    ) -> Lineage:
        sources = self._teacher_sources(name)
        # Read only where a recipe names models: the plan comes by here for every feature. A model that was not fetched
        # yet has taught nobody: until then its source stands for it.
        known = {base.source: base.digest for base in self.workspace.known_bases()} if sources else {}
        teachers = {teacher: known.get(source, source) for teacher, source in sources.items()}
        recipe = self.feature(name).recipe
        return lineage_of(recipe, records, release_key, texts, self._suite_digests(name), teachers)

    def suite_files(self, name: str) -> dict[str, dict[str, Path]]:
        """The files of the suites that a feature's recipe names, by suite and name.

        Raises:
            FactoryError: one is not there.
        """
        feature = self.feature(name)
        found: dict[str, dict[str, Path]] = {}
        for suite, rule in feature.recipe.evaluation.suites.items():
            found[suite] = {kind: (feature.folder / path).resolve() for kind, path in rule.files.items()}
            for kind, path in found[suite].items():
                if not path.is_file():
                    where = f"{feature.folder / 'recipe.yaml'}: evaluation.suites.{suite}.files.{kind}"
                    raise FactoryError(f"{where}: {path}: no such file")
        return found

    def verdicts_file(self, name: str) -> Path | None:
        """The file of people's verdicts that a feature's recipe names, if it names one.

        Raises:
            FactoryError: it is not there.
        """
        feature = self.feature(name)
        named = feature.recipe.evaluation.verdicts.people
        path = feature.folder / named if named else None
        if path is not None and not path.is_file():
            raise FactoryError(f"{feature.folder / 'recipe.yaml'}: evaluation.verdicts.people: {path}: no such file")
        return path

    def _suite_digests(self, name: str) -> dict[str, str]:
        """Of the files that a feature's tests read beside its records."""
        files = self.suite_files(name)
        digests = {f"{suite}.{kind}": digest_file(path) for suite, own in files.items() for kind, path in own.items()}
        people = self.verdicts_file(name)
        return digests | ({"verdicts.people": digest_file(people)} if people else {})

    # -- base releases -------------------------------------------------------------------------------------------------

    @cached_property
    def release_recipe(self) -> ReleaseRecipe:
        """The recipe of base releases, of this package unless settings name another, with the target that they set."""
        settings = self.settings
        recipe = load_release_recipe(settings.profile, settings.release_recipe or RELEASE_YAML)
        return recipe.with_target(settings.bits_per_weight) if settings.bits_per_weight else recipe

    def release_lineage_of(self, base_digest: str) -> dict[str, str]:
        """What decides the release that would be made of a base model now."""
        return release_lineage(base_digest, self.release_recipe)

    def release_lineage(self) -> dict[str, str] | None:
        """The same for the base that is current, None before any is known."""
        base = self.current_base()
        return self.release_lineage_of(base.digest) if base else None

    def base_digest(self, source: str) -> str:
        """The digest of the base model that a source holds now; a wheel that was fetched is pinned, and known by it.

        Raises:
            FactoryError: there is no such model, or it cannot be reached.
        """
        known = [base.digest for base in self.workspace.known_bases() if base.source == source]
        if known and source.startswith("wheel://"):
            return known[-1]
        from infra.sources import base_digest

        return base_digest(source)

    def current_base(self) -> KnownBase | None:
        """The base model under the current release, else the one that settings name if it was fetched already."""
        row = self.ledger.current_release()
        known = self.workspace.known_bases()
        if row is not None:
            digest = row.lineage["base_model"]
            found = [base for base in known if base.digest == digest]
            return found[-1] if found else KnownBase(self.settings.base, digest, 0.0)
        return next((base for base in known if base.source == self.settings.base), None)

    def current_release_key(self) -> str | None:
        """The key of the current base release, if there is one."""
        row = self.ledger.current_release()
        return row.base_release if row else None

    def release(self, key: str) -> Release:
        """A registered base release with the folders that it needs.

        Raises:
            FactoryError: it is not registered, or its files are damaged.
        """
        version = self.catalog.release(key)
        folder = self.catalog.release_folder(version)
        base_digest = read_manifest(folder).base
        return Release(key, version.digest, folder, base_digest, self.workspace.base_folder(base_digest))

    # -- features ------------------------------------------------------------------------------------------------------

    def job(self, feature: str) -> Job:
        """A feature's rebuild for the current base release, with its inputs as they are now.

        Raises:
            FactoryError: there is no base release yet.
        """
        key = self.current_release_key()
        if key is None:
            raise FactoryError("no base release yet; `factory base release` makes one")
        return self.job_on(feature, key)

    def job_on(self, feature: str, key: str) -> Job:
        """A feature's rebuild for a registered base release, with its inputs as they are now."""
        recipe = self.feature(feature).recipe
        records, refused = self.records(feature)
        texts = self.evaluation_texts(feature)
        release = self.release(key)
        teachers = self._teachers(feature, release)
        lineage = self._lineage(feature, records, key, texts)
        settings, start = self.settings, recipe.training.start
        earlier = self.catalog.package_folder(self.catalog.version(feature, start)) if isinstance(start, int) else None
        return Job(
            recipe,
            records,
            refused,
            lineage,
            release,
            settings.compute,
            settings.teacher_api_keys,
            teachers,
            self.workspace.books,
            self.synthesis_folder(feature),
            texts,
            earlier,
        )

    def _teachers(self, feature: str, release: Release) -> dict[str, System]:
        """The registered versions, and the models from elsewhere, that a feature's recipe names as teachers; a model
        that was never fetched is fetched now.
        """
        section = self.feature(feature).recipe.synthesis
        found = {}
        for name, source in self._teacher_sources(feature).items():
            base = next((base for base in self.workspace.known_bases() if base.source == source), None)
            if base is None or not self.workspace.base_folder(base.digest).is_dir():
                base = self.fetch(source)
            folder = self.workspace.base_folder(base.digest)
            found[name] = System(replace(release, base_digest=base.digest, base_folder=folder), None, base.digest)
        for name, teacher in (section.teachers if section else {}).items():
            if teacher.version is not None:
                version = self.catalog.version(feature, teacher.version)
                release = self.release(version.base_release)
                found[name] = System(release, self.catalog.package_folder(version), version.package)
        return found

    def _teacher_sources(self, feature: str) -> dict[str, str]:
        """The sources that a feature's recipe names for teachers, by their names; folders as whole paths."""
        owner = self.feature(feature)
        section = owner.recipe.synthesis
        named = {name: teacher.source for name, teacher in (section.teachers if section else {}).items()}
        return {
            name: source if "://" in source else str((owner.folder / Path(source).expanduser()).resolve())
            for name, source in named.items()
            if source
        }

    def fetch(self, source: str) -> KnownBase:
        """Bring a model to this machine, whatever was fetched from there before.

        Raises:
            FactoryError: the source is none, cannot be reached, or holds no model.
        """
        from infra.progress import console
        from infra.sources import fetch_base

        console.print(f"  fetching {source}", highlight=False)
        return self.workspace.add_base(source, lambda folder: fetch_base(source, folder).digest)

    def synthesis_folder(self, feature: str) -> Path:
        """Where a feature's drafts and audit tables lie; what settings keep no longer goes now, of every feature that
        ever was in the workspace.

        Raises:
            FactoryError: there is no such feature.
        """
        folder = self.workspace.synthesis / self.feature(feature).recipe.feature
        for one in self.workspace.synthesis.glob("*"):
            expire(one, self.settings.audit_days)
        return folder

    def production_package(self, feature: str) -> tuple["Version", Path]:
        """The version in production for the current base release, and its package, checked.

        Raises:
            FactoryError: nothing is in production.
        """
        self.feature(feature)
        key = self.current_release_key()
        row = self.ledger.production(feature, key) if key else None
        if row is None:
            raise FactoryError(f"{feature} has nothing in production; `factory run {feature}` makes a version")
        version = self.catalog.version(feature, row.version)
        return version, self.catalog.package_folder(version)


def open_factory(home: str | Path | None = None, profile: str | None = None) -> Factory:
    """The factory in a workspace; what the arguments leave open is read from settings."""
    quieten()
    factory = Factory(load_settings(home=home, profile=profile))
    if factory.prefect_api_url:
        os.environ.setdefault("PREFECT_API_URL", factory.prefect_api_url)  # where Prefect looks for it
    return factory
