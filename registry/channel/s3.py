"""A channel in S3. The timestamp moves by conditional writes, so two publishers cannot overwrite each other.

Source: Amazon S3, "conditional writes" (If-None-Match, If-Match). Large files go up in parts.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.s3 import error_code, open_client, s3_errors
from registry.channel.stores import Found, Stored, checked_key

_MISSING = ("NoSuchKey", "404")
# 412: another condition holds; 409: another writer is at it.
_LOST = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_PART_BYTES = 8 << 20
_DIGEST = "sha256"


class S3Store:
    """A channel under a prefix of a bucket; the tag of a file is its ETag."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def place(self) -> str:
        """Bucket and prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def read(self, key: str) -> Found | None:
        """See `Store`."""
        from botocore.exceptions import ClientError

        with s3_errors(self.place):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
                return Found(answer["Body"].read(), answer["ETag"])
            except ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise

    def put(self, key: str, content: bytes, tag: str | None) -> bool:
        """See `Store`."""
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with s3_errors(self.place):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=content, **condition)
            except ClientError as error:
                if error_code(error) not in (*_LOST, *_MISSING):
                    raise
                # Of a try whose answer was lost, the next one finds its own file.
                present = self.read(key)
                return present is not None and present.content == content
        return True

    def add_file(self, key: str, source: Path, sha256: str) -> bool:
        """See `Store`. The digest is kept beside the file, and believed: S3 checks what it stores."""
        from boto3.s3.transfer import TransferConfig

        if self._has(key, source.stat().st_size, sha256):
            return False
        with s3_errors(self.place):
            self._client.upload_file(
                str(source),
                self._bucket,
                self._key(key),
                ExtraArgs={"Metadata": {_DIGEST: sha256}},
                Config=TransferConfig(multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES),
            )
        return True

    def digest(self, key: str) -> str | None:
        """See `Store`."""
        from botocore.exceptions import ClientError

        hashed = hashlib.sha256()
        with s3_errors(self.place):
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"]
            except ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise
            for part in body.iter_chunks(_PART_BYTES):
                hashed.update(part)
        return hashed.hexdigest()

    def files(self) -> Iterator[Stored]:
        """See `Store`."""
        with s3_errors(self.place):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(self._prefix)
                    yield Stored(key, int(entry["Size"]), entry["LastModified"])

    def remove(self, key: str) -> None:
        """See `Store`."""
        with s3_errors(self.place):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def _has(self, key: str, size: int, sha256: str) -> bool:
        from botocore.exceptions import ClientError

        with s3_errors(self.place):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
            except ClientError as error:
                if error_code(error) in _MISSING:
                    return False
                raise
        return (head["ContentLength"], head["Metadata"].get(_DIGEST)) == (size, sha256)

    def _key(self, key: str) -> str:
        return self._prefix + checked_key(key)

    @cached_property
    def _client(self) -> Any:
        return open_client()
