"""Base models from a Hugging Face hub: huggingface.co, or a server of its API named by HF_ENDPOINT."""

import os
import tempfile
from pathlib import Path

from infra.base_sources.files import choose_files
from infra.canonical import digest_file
from infra.errors import FactoryError
from infra.progress import track


def fetch_hub(repository: str, revision: str | None, folder: Path) -> str:
    """Put a repository's model into `folder`; returns the commit that `revision` (default: the main branch) is.

    HF_TOKEN, if set, is sent along. Large files are checked against the SHA-256 that the hub states for them.

    Raises:
        FactoryError: the hub cannot be reached, there is no such repository, revision or model in it, access is
            denied, or a file arrived damaged.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    api = HfApi(endpoint=endpoint)
    where = f"hf://{repository}" + (f"@{revision}" if revision else "")
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        info = api.model_info(repository, revision=revision, files_metadata=True)
        files = {file.rfilename: file for file in info.siblings or []}
        names = choose_files(files, where)
        with track(f"base: {repository}", sum(files[name].size or 0 for name in names) / 1e6) as step:
            for name in names:
                _download(api, repository, info.sha, name, folder)
                expected = files[name].lfs.sha256 if files[name].lfs else None
                if expected is not None and digest_file(folder / name) != expected:
                    raise FactoryError(f"{where}: {name} is not what the hub says it is (SHA-256 differs); try again")
                step.advance((files[name].size or 0) / 1e6, note=f"MB, {name}")
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
        raise FactoryError(
            f"{where}: cannot reach {endpoint} ({reason}); check the network, name a mirror in HF_ENDPOINT, or use a "
            "model folder"
        ) from None
    finally:
        if shown:
            enable_progress_bars()
    return str(info.sha)


def _download(api: object, repository: str, commit: str, name: str, folder: Path) -> None:
    # The client keeps a cache beside what it downloads, which is no part of the model.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        file = api.hf_hub_download(repository, name, revision=commit, local_dir=temporary)  # type: ignore[attr-defined]
        Path(file).rename(folder / name)
