"""Base models from S3: `s3://bucket/prefix`. AWS_ENDPOINT_URL names another server than Amazon's."""

from pathlib import Path
from typing import Any

from infra.base_sources.files import choose_files
from infra.canonical import digest
from infra.errors import FactoryError
from infra.progress import track

_ATTEMPTS = 5
_REASONS = {
    "NoSuchBucket": "no such bucket",
    "AccessDenied": "access denied; the credentials need s3:ListBucket and s3:GetObject",
    "InvalidAccessKeyId": "unknown access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "wrong secret key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is off; set it",
    "ExpiredToken": "the session's credentials have expired; renew them",
}


def fetch_bucket(bucket: str, prefix: str, folder: Path) -> str:
    """Put the model under a prefix into `folder`; returns a digest of its objects' ETags, which names this content.

    Credentials come from where boto3 looks for them.

    Raises:
        FactoryError: the server cannot be reached, no or wrong credentials, no such bucket, no model under the prefix,
            or one that was replaced while it was read.
    """
    import boto3
    from botocore import exceptions
    from botocore.config import Config

    where = f"s3://{bucket}/{prefix}"
    try:
        # A session of its own: the default one would keep the credentials that it found first.
        client = boto3.Session().client(
            "s3", config=Config(retries={"mode": "standard", "total_max_attempts": _ATTEMPTS})
        )
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
            raise FactoryError(f"{where}: was replaced while it was read; try again")
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise FactoryError(
            f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in AWS_PROFILE"
        ) from None
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise FactoryError(f"{where}: {_REASONS.get(code, str(error))}") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        raise FactoryError(f"{where}: {error}; check the network and AWS_ENDPOINT_URL") from None
    return digest(etags)


def _objects(client: Any, bucket: str, prefix: str) -> dict[str, dict[str, Any]]:
    """The objects directly under a prefix, by their name there."""
    start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/")
    return {entry["Key"][len(start) :]: entry for page in pages for entry in page.get("Contents", [])}
