"""The catalog: runs, registered adapters and base releases in MLflow.

Notable choices:
- One experiment and one registered model (`adapter-<feature>`) per feature; base releases are versions of
  `base-release` and are kept once: an adapter's model names the release that it runs on and loads it from there.
- Adapters are pyfunc models from code (`pyfunc_model.py`): a script and safetensors, no pickle.
- The same output registered again, by a run that goes on after a kill, is the same version.
- What comes back from MLflow is checked by digest before it is used.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.device.package import verify_package
from adapters.evaluation.gates import GateReport
from adapters.lineage import Lineage
from infra.canonical import digest_folder
from infra.errors import FactoryError
from registry.live_run import TRAINING, LiveRun
from registry.mlflow_store import MlflowStore, created
from registry.versions import (
    ReleaseVersion,
    Version,
    adapter_tags,
    release_from_tags,
    release_tags,
    verdict_tags,
    version_from_tags,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELEASES = "base-release"
GATES = "gates.json"
# Alias of the production version for the current base release; for another one `production-<its key's first 12>`.
PRODUCTION = "production"
_MODEL, _RELEASE, _PACKAGE, _EVIDENCE = "model", "release", "package", "evidence"
_SCRIPT = Path(__file__).with_name("pyfunc_model.py")
_REQUIREMENTS = ("mlflow", "torch", "transformers", "peft", "safetensors", "numpy")


def adapter_model(feature: str) -> str:
    """Name of a feature's registered model."""
    return f"adapter-{feature}"


@dataclass(frozen=True)
class RunContent:
    """What one run leaves behind.

    `series` are curves of (step, value); `figures` go by file name (`curve.png`); `files` are files, or folders whose
    content is meant, by the artifact folder that they go to ("": the top).
    """

    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    figures: Mapping[str, "Figure"] = field(default_factory=dict)
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)


class Catalog:
    """What is registered in the MLflow at `tracking_uri`; files go to the URI `artifact_root`, or where a server says.

    What lies on another machine is fetched into the folder `downloads`, once.

    Nothing is imported or opened before the first call. All methods raise FactoryError for what MLflow refuses.
    """

    def __init__(self, tracking_uri: str, artifact_root: str, downloads: Path) -> None:
        self._store = MlflowStore(tracking_uri, artifact_root, downloads)

    def live_run(self, experiment: str, name: str, key: str) -> LiveRun:
        """A run that takes the curves of a training while it goes; `log_run` with the same `key` completes it."""
        return LiveRun(self._store, experiment, name, key)

    def log_run(self, experiment: str, name: str, content: RunContent, key: str | None = None) -> str:
        """Record one finished run under an experiment and return its id.

        It is the live run with a `key` if there is one that nothing was logged for yet, of which only points that it
        lacks are added; else a new one.
        """
        from mlflow.entities import Metric, Param

        live = self._store.find_run(experiment, TRAINING, key) if key else None
        run_id = live or self._store.new_run(experiment, name, {})
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in content.metrics.items()]
        for curve, points in content.series.items():
            known = self._store.logged_steps(run_id, curve) if live else set()
            metrics += [Metric(curve, value, now, step) for step, value in points if step not in known]
        params = [Param(name, str(value)) for name, value in content.params.items()]
        with self._store.client() as client:
            client.log_batch(run_id, metrics=metrics, params=params)
            for file_name, figure in content.figures.items():
                client.log_figure(run_id, figure, file_name)
            for folder, paths in content.files.items():
                for path in paths:
                    self._store.log(run_id, path, folder)
            client.set_terminated(run_id)
            if live:
                client.delete_tag(run_id, TRAINING)
        return run_id

    def figures(self, version: Version | ReleaseVersion) -> dict[str, float]:
        """The metrics of the run that last tested a version."""
        with self._store.client() as client:
            return dict(client.get_run(version.run_id).data.metrics)

    def run_file(self, run_id: str, name: str) -> Path:
        """A file that a run left behind; with a local artifact store it is not copied."""
        return self._store.run_file(run_id, name)

    def gate_report(self, version: Version | ReleaseVersion) -> GateReport:
        """A version's last gate report.

        Raises:
            FactoryError: it is not there or is not the one that was registered.
        """
        report = GateReport.from_json(self._store.run_file(version.run_id, GATES).read_text("utf-8"))
        if report.digest != version.evidence:
            raise FactoryError(f"run {version.run_id}: {GATES} is not the one that was registered; evaluate again")
        return report

    def evidence(self, experiment: str, digest: str) -> GateReport | None:
        """The gate report with a digest that some run of an experiment left behind, however many came after it."""
        run_id = self._store.find_run(experiment, _EVIDENCE, digest)
        if run_id is None:
            return None
        report = GateReport.from_json(self._store.run_file(run_id, GATES).read_text("utf-8"))
        return report if report.digest == digest else None

    def register_adapter(
        self,
        feature: str,
        run_id: str,
        package: Path,
        lineage: Lineage,
        report: GateReport,
        champion: str | None = None,
    ) -> Version:
        """Register a package and its verdict, reached against the package `champion`, as a feature's next version.

        Raises:
            FactoryError: the package is not whole, or its base release is not registered.
        """
        metadata = verify_package(package)
        for known in self.versions(feature):
            if (known.lineage.key, known.package) == (lineage.key, metadata.digest):
                return self.record_evaluation(known, run_id, lineage, report, champion)
        release = self.release(metadata.base_release, metadata.base_release_digest)
        config = {
            "base_release": f"models:/{RELEASES}/{release.version}",
            "package": metadata.digest,
            "device": "cpu",
            "precision": "auto",
        }
        with tempfile.TemporaryDirectory() as scratch:
            model = _save_model(package, config, Path(scratch))
            self._store.log(run_id, model, _MODEL)
        self._log_report(run_id, report)
        tags = adapter_tags(lineage, metadata.digest) | verdict_tags(report, run_id, lineage, champion)
        return self.version(feature, self._store.new_version(adapter_model(feature), run_id, _MODEL, tags))

    def record_evaluation(
        self, version: Version, run_id: str, lineage: Lineage, report: GateReport, champion: str | None = None
    ) -> Version:
        """Replace a version's verdict by that of another run over the same build, reached against `champion`."""
        self._log_report(run_id, report)
        tags = verdict_tags(report, run_id, lineage, champion)
        self._store.set_tags(adapter_model(version.feature), version.version, tags)
        return self.version(version.feature, version.version)

    def versions(self, feature: str) -> list[Version]:
        """A feature's registered versions, oldest first; none if it has no model yet."""
        return [
            version_from_tags(feature, int(entry.version), entry.tags, created(entry))
            for entry in self._store.versions(adapter_model(feature))
            if "lineage" in entry.tags  # others were registered by hand and are none of ours
        ]

    def version(self, feature: str, number: int) -> Version:
        """One registered version.

        Raises:
            FactoryError: there is no such version.
        """
        for version in self.versions(feature):
            if version.version == number:
                return version
        raise FactoryError(f"{feature} has no version {number}; `factory registry show {feature}` lists them")

    def package_folder(self, version: Version) -> Path:
        """The folder with a version's package; with a local artifact store it is not copied.

        Raises:
            FactoryError: the package is damaged or is not the one that was registered.
        """
        model = adapter_model(version.feature)
        folder = self._store.version_folder(model, version.version, f"artifacts/{_PACKAGE}")
        if verify_package(folder).digest != version.package:
            raise FactoryError(
                f"{folder}: not the package registered as {version.feature} {version.version}; run again"
            )
        return folder

    def register_release(
        self, run_id: str, folder: Path, lineage: Mapping[str, str], report: GateReport
    ) -> ReleaseVersion:
        """Register a base release's folder and verdict; the digest of its lineage is its key.

        A key is registered once, as long as what was registered is whole, and takes the new verdict: the asset's bytes
        may differ from build to build, so whoever goes on must take folder and digest from here (`release_folder`), not
        from a second build.
        """
        self._log_report(run_id, report)
        verdict = verdict_tags(report, run_id)
        for known in reversed(self.releases()):
            if known.lineage == lineage and self._is_whole(known):
                if known.evidence != report.digest:
                    self._store.set_tags(RELEASES, known.version, verdict)
                return self.release(known.key, known.digest)
        self._store.log(run_id, folder, _RELEASE)
        tags = release_tags(lineage, digest_folder(folder))
        self._store.new_version(RELEASES, run_id, _RELEASE, tags | verdict)
        return self.release(tags["base_release"])

    def releases(self) -> list[ReleaseVersion]:
        """Registered base releases, oldest first."""
        return [
            release_from_tags(int(entry.version), entry.tags, created(entry))
            for entry in self._store.versions(RELEASES)
            if "lineage" in entry.tags
        ]

    def release(self, key: str, digest: str | None = None) -> ReleaseVersion:
        """The base release with a key, and with a digest if one is given; the latest if there are several.

        Raises:
            FactoryError: there is none.
        """
        for release in reversed(self.releases()):
            if release.key == key and digest in (None, release.digest):
                return release
        raise FactoryError(f"base release {key[:12]} is not registered; `factory base release` makes it")

    def release_version(self, number: int) -> ReleaseVersion:
        """A base release by the number of its version.

        Raises:
            FactoryError: there is none.
        """
        for release in self.releases():
            if release.version == number:
                return release
        known = ", ".join(str(release.version) for release in self.releases()) or "none"
        raise FactoryError(f"the base has no release {number}; there are: {known}")

    def release_folder(self, release: ReleaseVersion) -> Path:
        """The folder of a base release; with a local artifact store it is not copied.

        Raises:
            FactoryError: the folder is not the one that was registered.
        """
        folder = self._store.version_folder(RELEASES, release.version)
        if digest_folder(folder) != release.digest:
            raise FactoryError(f"{folder}: not the base release that was registered; release it again")
        return folder

    def set_production_aliases(self, model: str, wanted: Mapping[str, int]) -> list[str]:
        """Make the aliases of a registered model that begin with `production` exactly the wanted ones.

        Returns a line for each that was changed.
        """
        changes = self._off_aliases(model, wanted)
        for alias, (_, to) in changes.items():
            self._store.set_alias(model, alias, to)
        return [f"{model}: alias {alias} {present} → {to}" for alias, (present, to) in changes.items()]

    def off_aliases(self, model: str, wanted: Mapping[str, int]) -> list[str]:
        """A line for each alias that `set_production_aliases` would change."""
        changes = self._off_aliases(model, wanted).items()
        return [f"{model}: alias {alias} is {present}, and should be {to}" for alias, (present, to) in changes]

    def _off_aliases(self, model: str, wanted: Mapping[str, int]) -> dict[str, tuple[int | None, int | None]]:
        """By alias, where it points to and where it should; None: nowhere."""
        present = self._store.aliases(model)
        ours = wanted.keys() | {alias for alias in present if alias.startswith(PRODUCTION)}
        found = {alias: (present.get(alias), wanted.get(alias)) for alias in [*wanted, *sorted(ours - wanted.keys())]}
        return {alias: (now, to) for alias, (now, to) in found.items() if now != to}

    def _is_whole(self, release: ReleaseVersion) -> bool:
        try:
            self.release_folder(release)
        except FactoryError:
            return False
        return True

    def _log_report(self, run_id: str, report: GateReport) -> None:
        with self._store.client() as client:
            client.log_text(run_id, report.to_json(), GATES)
            client.set_tag(run_id, _EVIDENCE, report.digest)


def _save_model(package: Path, config: dict[str, str], scratch: Path) -> Path:
    """Write the pyfunc model that carries a package."""
    import mlflow.pyfunc

    shutil.copytree(package, scratch / _PACKAGE)  # MLflow names the artifact by its folder
    model = scratch / _MODEL
    mlflow.pyfunc.save_model(
        model,
        python_model=str(_SCRIPT),
        artifacts={_PACKAGE: str(scratch / _PACKAGE)},
        model_config=config,
        pip_requirements=[f"{name}=={installed(name)}" for name in _REQUIREMENTS],
    )
    return model
