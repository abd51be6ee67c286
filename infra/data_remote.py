"""Where the data of several workspaces meets: a folder or `s3://bucket/prefix`.

Contents go through DVC, the history of versions as a git bundle beside them, which goes last: whoever pulls finds the
contents of every version that it names. Of two pushes at the same time one wins and the other is told to pull first;
versions that were made apart are never merged, since only people know which records they meant.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from infra.dvc_data import DataRepo
from infra.errors import FactoryError

_HISTORY = "history.bundle"
_CONTENTS = "contents"
_LOCK_SECONDS = 60.0
_APART = "was changed apart from this workspace; pull into a fresh workspace, add your records there, and push"


class _Place(Protocol):
    """One file that is replaced only if it is still what was read."""

    def read(self) -> tuple[bytes | None, str]:
        """The content, None if there is none yet, and a mark of it."""
        ...

    def write(self, content: bytes, mark: str) -> bool:
        """Replace what has the mark; False if something else is there by now."""
        ...


class DataRemote:
    """A remote of a data repository."""

    def __init__(self, repo: DataRepo, url: str) -> None:
        """`url` is a folder or `s3://bucket/prefix`.

        Raises:
            FactoryError: it is neither.
        """
        parts = urlsplit(url)
        if parts.scheme == "s3" and parts.netloc:
            prefix = parts.path.strip("/")
            self._place: _Place = _Object(parts.netloc, f"{prefix}/{_HISTORY}".lstrip("/"))
            self.url = f"s3://{parts.netloc}/{prefix}".rstrip("/")
        elif url and not parts.scheme:
            folder = Path(url).expanduser().absolute()
            self._place, self.url = _File(folder / _HISTORY), str(folder)
        else:
            raise FactoryError(f"data remote {url!r}: name a folder or s3://bucket/prefix in `data_remote`")
        self._repo = repo

    def push(self) -> int:
        """Bring every version to the remote; how many versions it has then.

        Raises:
            FactoryError: the remote has versions that this workspace has not, or cannot be reached.
        """
        there, mark = self._place.read()
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / _HISTORY
            if there is not None:
                bundle.write_bytes(there)
                if self._repo.relation(bundle) not in ("same", "behind"):
                    raise FactoryError(f"{self.url}: {_APART}")
            self._repo.push(f"{self.url}/{_CONTENTS}")
            self._repo.write_history(bundle)
            if not self._place.write(bundle.read_bytes(), mark):
                raise FactoryError(f"{self.url}: another workspace pushed at the same time; `factory data pull` first")
        return self._repo.count()

    def head(self) -> str:
        """A mark of what the remote holds now; "" if nothing."""
        return self._place.read()[1]

    def pull(self) -> int:
        """Bring the remote's versions here; how many there are then.

        Raises:
            FactoryError: nothing is there, both sides have versions that the other has not, or it cannot be reached.
        """
        there, _ = self._place.read()
        if there is None:
            raise FactoryError(f"{self.url}: holds no data yet; `factory data push` brings it there")
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / _HISTORY
            bundle.write_bytes(there)
            relation = self._repo.relation(bundle)
            if relation == "apart":
                raise FactoryError(f"{self.url}: {_APART}")
            if relation == "ahead":
                self._repo.take_history(bundle)
        self._repo.pull(f"{self.url}/{_CONTENTS}")
        return self._repo.count()


class _File:
    """A file in a folder that several machines may see."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[bytes | None, str]:
        content = self._path.read_bytes() if self._path.is_file() else None
        return content, _mark(content)

    def write(self, content: bytes, mark: str) -> bool:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                if self.read()[1] != mark:
                    return False
                new = self._path.with_suffix(".new")
                new.write_bytes(content)
                new.replace(self._path)
                return True
        except Timeout:
            raise FactoryError(f"{self._path.parent}: held by another process; try again") from None


class _Object:
    """An object in S3, written with If-Match: of several writers one wins."""

    def __init__(self, bucket: str, key: str) -> None:
        self._bucket, self._key = bucket, key

    def read(self) -> tuple[bytes | None, str]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._client().get_object(Bucket=self._bucket, Key=self._key)
            return found["Body"].read(), found["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None, ""
            raise self._error(error) from None
        except BotoCoreError as error:
            raise self._error(error) from None

    def write(self, content: bytes, mark: str) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        condition = {"IfMatch": mark} if mark else {"IfNoneMatch": "*"}
        try:
            self._client().put_object(Bucket=self._bucket, Key=self._key, Body=content, **condition)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                return False
            raise self._error(error) from None
        except BotoCoreError as error:
            raise self._error(error) from None
        return True

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 3}))

    def _error(self, error: Exception) -> FactoryError:
        return FactoryError(f"s3://{self._bucket}/{self._key}: {error}; check the address and the AWS_… variables")


def _mark(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()
