"""Base models from a Hugging Face hub: huggingface.co, or a server of its API named by HF_ENDPOINT."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.base_sources.files import choose_files
from infra.canonical import digest, digest_file
from infra.errors import FactoryError, Unavailable
from infra.progress import track


def fetch_hub(repository: str, revision: str | None, folder: Path) -> str:
    """Put a repository's model into `folder`; returns the commit that `revision` (default: the main branch) is.

    HF_TOKEN, if set, is sent along. Large files are checked against the SHA-256 that the hub states for them.

    Raises:
        FactoryError: the hub cannot be reached, there is no such repository, revision or model in it, access is
            denied, or a file arrived damaged.
    """
    where = _where(repository, revision)
    with _hub(where) as api:
        commit, files = _files(api, repository, revision, where)
        with track(f"base: {repository}", sum(file.size or 0 for file in files.values()) / 1e6) as step:
            for name, file in files.items():
                _download(api, repository, commit, name, folder)
                expected = file.lfs.sha256 if file.lfs else None
                if expected is not None and digest_file(folder / name) != expected:
                    raise FactoryError(f"{where}: {name} is not what the hub says it is (SHA-256 differs); try again")
                step.advance((file.size or 0) / 1e6, note=f"MB, {name}")
    return commit


def digest_hub(repository: str, revision: str | None) -> str:
    """The digest that a repository's model would have once fetched.

    Only small files are fetched for it: the hub states the SHA-256 of large ones.

    Raises:
        FactoryError: as `fetch_hub`.
    """
    where = _where(repository, revision)
    with _hub(where) as api, tempfile.TemporaryDirectory() as temporary:
        commit, files = _files(api, repository, revision, where)
        digests: dict[str, str] = {}
        for name, file in files.items():
            if not file.lfs:
                _download(api, repository, commit, name, Path(temporary))
            digests[name] = file.lfs.sha256 if file.lfs else digest_file(Path(temporary) / name)
    return digest(digests)


def hub_revision(repository: str, revision: str | None) -> str:
    """The commit that a revision (default: the main branch) is now.

    Raises:
        FactoryError: as `fetch_hub`.
    """
    with _hub(_where(repository, revision)) as api:
        return str(api.model_info(repository, revision=revision).sha)


def _where(repository: str, revision: str | None) -> str:
    return f"hf://{repository}" + (f"@{revision}" if revision else "")


def _files(api: Any, repository: str, revision: str | None, where: str) -> tuple[str, dict[str, Any]]:
    """The commit, and the hub's entries of the files that count."""
    info = api.model_info(repository, revision=revision, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or []}
    return str(info.sha), {name: files[name] for name in choose_files(files, where)}


def _download(api: Any, repository: str, commit: str, name: str, folder: Path) -> None:
    # The client keeps a cache beside what it downloads, which is no part of the model.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        file = api.hf_hub_download(repository, name, revision=commit, local_dir=temporary)
        Path(file).rename(folder / name)


@contextmanager
def _hub(where: str) -> Iterator[Any]:
    """The hub's client without its own progress bars, for a block whose errors become one line."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield HfApi(endpoint=endpoint)
    except errors.GatedRepoError:
        raise FactoryError(f"{where}: access to this model has to be granted; ask for it, and set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise FactoryError(f"{where}: no such revision") from None
    except errors.RepositoryNotFoundError:
        raise FactoryError(
            f"{where}: no such model at {endpoint}, or none for you; set HF_TOKEN if it is private"
        ) from None
    except errors.HFValidationError as error:
        raise FactoryError(f"{where}: {error}") from None
    except errors.HTTPError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unavailable(
            f"{where}: cannot reach {endpoint} ({reason}); check the network, name a mirror in HF_ENDPOINT, or use a "
            "model folder"
        ) from None
    finally:
        if shown:
            enable_progress_bars()
