"""MLflow as the catalog uses it: quiet, with one-line errors, and without its process-wide state."""

import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.canonical import digest
from infra.errors import FactoryError, Unavailable
from infra.s3 import s3_errors
from infra.workspace import in_use

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Set before MLflow's first import, which reads them: no telemetry, no log of migrations, no links, no progress bars.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow names so whatever its client or its database met; a request that is wrong has a code of its own.
_MAY_PASS = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_DATABASES = ("postgresql", "mysql", "mssql")
_PAGE = 1000


class MlflowStore:
    """The MLflow at `tracking_uri`; files go to the URI `artifact_root` unless a server keeps them. What lies elsewhere
    is fetched once, into `downloads`: the files of a run or version never change.

    Connecting takes MLflow's import and start (2 s, 4 s on a new database) and happens at the first use. Every method
    raises FactoryError for what MLflow refuses or cannot reach.
    """

    def __init__(self, tracking_uri: str, artifact_root: str, downloads: Path) -> None:
        self.tracking_uri = tracking_uri
        self._artifact_root = artifact_root
        self._downloads = downloads

    @contextmanager
    def client(self) -> Iterator["MlflowClient"]:
        """The client, for a block whose MLflow errors become one line."""
        os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import OperationalError, SQLAlchemyError

        try:
            yield self._connected
        except MlflowException as error:
            raise self._error(error.message, error.error_code in _MAY_PASS) from None
        except SQLAlchemyError as error:
            raise self._error(error, isinstance(error, OperationalError)) from None

    def _error(self, reason: object, may_pass: bool) -> FactoryError:
        line = str(reason).strip().splitlines()[0]
        kind = Unavailable if may_pass else FactoryError
        return kind(f"MLflow at {self.tracking_uri}: {line}; check the server and mlflow_uri")

    def experiment(self, name: str) -> str:
        """Id of an experiment, made if it is not there."""
        with self.client() as client:
            found = client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            at_server = self.tracking_uri.startswith(("http://", "https://", "databricks"))
            place = None if at_server else f"{self._artifact_root}/{name}"
            return str(client.create_experiment(name, artifact_location=place))

    def find_run(self, experiment: str, tag: str, value: str) -> str | None:
        """Id of the latest run of an experiment whose tag has a value, None if there is none."""
        with self.client() as client:
            found = client.get_experiment_by_name(experiment)
            if found is None:
                return None
            runs = client.search_runs([found.experiment_id], f"tags.{tag} = '{value}'", max_results=1)
            return str(runs[0].info.run_id) if runs else None

    def new_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> str:
        """Id of a new run of an experiment."""
        experiment_id = self.experiment(experiment)
        with self.client() as client:
            return str(client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id)

    def logged_steps(self, run_id: str, metric: str) -> set[int]:
        """The steps of a run at which a metric has a value."""
        with self.client() as client:
            return {int(point.step) for point in client.get_metric_history(run_id, metric)}

    def log(self, run_id: str, path: Path, folder: str) -> None:
        """Copy a file, or a folder's content, into a folder of a run's artifacts ("": the top)."""
        with self.client() as client, _errors_of(str(client.get_run(run_id).info.artifact_uri)):
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), folder or None)

    def new_version(self, model: str, run_id: str, folder: str, tags: Mapping[str, str]) -> int:
        """Register a folder of a run's artifacts as a model's next version, with its tags at once."""
        from mlflow.exceptions import MlflowException

        with self.client() as client:
            try:
                client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{client.get_run(run_id).info.artifact_uri}/{folder}"
            made = client.create_model_version(model, source, run_id, tags=dict(tags), await_creation_for=None)
            return int(made.version)

    def set_tags(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a model version, one after the other in the order given."""
        with self.client() as client:
            for key, value in tags.items():
                client.set_model_version_tag(model, str(version), key, value)

    def versions(self, model: str) -> list[Any]:
        """MLflow's entries of all versions of a model, in order; none if there is no such model."""
        entries: list[Any] = []
        with self.client() as client:
            token = None
            while token is None or token:
                page = client.search_model_versions(f"name='{model}'", max_results=_PAGE, page_token=token)
                entries += page
                token = page.token or ""
        return sorted(entries, key=lambda entry: int(entry.version))

    def version_folder(self, model: str, version: int, below: str = "") -> Path:
        """The files of a model version, or of a folder below; not copied if they lie on this machine."""
        with self.client() as client:
            return self.fetch(f"{client.get_model_version_download_uri(model, str(version))}/{below}".rstrip("/"))

    def run_file(self, run_id: str, name: str) -> Path:
        """One file of a run's artifacts."""
        with self.client() as client:
            return self.fetch(f"{client.get_run(run_id).info.artifact_uri}/{name}")

    def fetch(self, uri: str) -> Path:
        """A local path with an artifact's content."""
        kept = in_use(self._downloads / digest(uri))
        name = uri.rstrip("/").rsplit("/", 1)[-1]
        if (kept / name).exists():
            return kept / name
        with self.client(), _errors_of(uri):
            from mlflow.artifacts import download_artifacts

            try:
                if uri.startswith(("file:", "/")):
                    return Path(download_artifacts(artifact_uri=uri, tracking_uri=self.tracking_uri))
                self._downloads.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=self._downloads) as making:
                    download_artifacts(artifact_uri=uri, dst_path=f"{making}/new", tracking_uri=self.tracking_uri)
                    with suppress(FileExistsError):  # another process was first
                        Path(making, "new").rename(kept)
            except OSError as error:
                raise FactoryError(
                    f"{uri}: {error.strerror or error}; was it deleted? run again to rebuild it"
                ) from None
        return kept / name

    def aliases(self, model: str) -> dict[str, int]:
        """Aliases of a model and the versions that they point to; none if there is no such model."""
        from mlflow.exceptions import MlflowException

        with self.client() as client:
            try:
                found = client.get_registered_model(model).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
        return {alias: int(version) for alias, version in found.items()}

    def set_alias(self, model: str, alias: str, version: int | None) -> None:
        """Point a model's alias to a version, or remove it."""
        with self.client() as client:
            if version is None:
                client.delete_registered_model_alias(model, alias)
            else:
                client.set_registered_model_alias(model, alias, str(version))

    @functools.cached_property
    def _connected(self) -> "MlflowClient":
        import sqlalchemy
        from mlflow.tracking import MlflowClient

        if self.tracking_uri.startswith("sqlite:///"):
            Path(self.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        elif self.tracking_uri.startswith(_DATABASES):
            # MLflow itself would try for a minute, and then raise whatever it met.
            try:
                engine = sqlalchemy.create_engine(self.tracking_uri)
            except ModuleNotFoundError as error:  # the driver
                raise self._error(error, may_pass=False) from None
            engine.connect().close()
            engine.dispose()
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)


def _errors_of(uri: str) -> AbstractContextManager[None]:
    """S3's errors about a place in one line, if it is one of S3."""
    return s3_errors(uri) if uri.startswith("s3:") else nullcontext()


def created(entry: Any) -> str:
    """When a model version was registered: UTC, ISO 8601."""
    return datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC).isoformat(timespec="seconds")
