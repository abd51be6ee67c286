"""Base models from S3: `s3://bucket/prefix`. AWS_ENDPOINT_URL names another server than Amazon's."""

from pathlib import Path
from typing import Any

from infra.base_sources.files import choose_files
from infra.canonical import digest
from infra.errors import FactoryError, Unavailable
from infra.progress import track
from infra.s3 import open_client, s3_errors


def fetch_bucket(bucket: str, prefix: str, folder: Path) -> str:
    """Put the model under a prefix into `folder`; returns a digest of its objects' ETags, which names this content.

    Credentials come from where boto3 looks for them.

    Raises:
        FactoryError: the server cannot be reached, no or wrong credentials, no such bucket, no model under the prefix,
            or one that was replaced while it was read.
    """
    where = f"s3://{bucket}/{prefix}"
    with s3_errors(where):
        client = open_client()
        objects = _objects(client, bucket, prefix)
        if not objects:
            raise FactoryError(f"{where}: nothing there; check the prefix")
        names = choose_files(objects, where)
        with track(f"base: {where}", sum(objects[name]["Size"] for name in names) / 1e6) as step:
            for name in names:
                client.download_file(bucket, objects[name]["Key"], str(folder / name))
                step.advance(objects[name]["Size"] / 1e6, note=f"MB, {name}")
        etags = {name: objects[name]["ETag"] for name in names}
        now = _objects(client, bucket, prefix)
        if any(name not in now or now[name]["ETag"] != etag for name, etag in etags.items()):
            raise Unavailable(f"{where}: was replaced while it was read; try again")
    return digest(etags)


def bucket_revision(bucket: str, prefix: str) -> str:
    """The digest of ETags that `fetch_bucket` would give now.

    Raises:
        FactoryError: as `fetch_bucket`.
    """
    where = f"s3://{bucket}/{prefix}"
    with s3_errors(where):
        objects = _objects(open_client(), bucket, prefix)
        return digest({name: objects[name]["ETag"] for name in choose_files(objects, where)})


def _objects(client: Any, bucket: str, prefix: str) -> dict[str, dict[str, Any]]:
    """The objects directly under a prefix, by their name there."""
    start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/")
    return {entry["Key"][len(start) :]: entry for page in pages for entry in page.get("Contents", [])}
