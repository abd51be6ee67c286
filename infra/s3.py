"""S3 through boto3: a client that retries, and its errors in one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.errors import FactoryError, Unavailable

_ATTEMPTS = 5
_PATIENT_ATTEMPTS = 10  # with pauses of up to 20 s: about a minute
_VARIABLE = "AWS_MAX_ATTEMPTS"
_REASONS = {
    "NoSuchBucket": "no such bucket",
    "AccessDenied": "access denied; check what the credentials may do there",
    "403": "access denied; check the credentials and what they may do there",
    "InvalidAccessKeyId": "unknown access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "wrong secret key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "this machine's clock is off; set it",
    "ExpiredToken": "the session's credentials have expired; renew them",
}


def open_client() -> Any:
    """A client. Credentials come from where boto3 looks for them; AWS_ENDPOINT_URL names another server than Amazon's.

    Calls are tried five times, or as AWS_MAX_ATTEMPTS says, with growing pauses (botocore's standard mode).
    """
    import boto3
    from botocore.config import Config

    attempts = int(os.environ.get(_VARIABLE, _ATTEMPTS))
    # A session of its own: the default one would keep the credentials that it found first.
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    return boto3.Session().client("s3", config=config)


def be_patient() -> None:
    """Let S3 be away for a minute: for runs, which take longer than that. MLflow's own clients read these, too."""
    os.environ.setdefault(_VARIABLE, str(_PATIENT_ATTEMPTS))
    os.environ.setdefault("AWS_RETRY_MODE", "standard")


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """boto3's errors in the block, about `where`, as FactoryError."""
    from boto3.exceptions import Boto3Error
    from botocore import exceptions

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise FactoryError(
            f"{where}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in AWS_PROFILE"
        ) from None
    except (exceptions.ClientError, Boto3Error) as error:
        refused = error if isinstance(error, exceptions.ClientError) else error.__context__  # of a transfer in parts
        code = error_code(refused) if isinstance(refused, exceptions.ClientError) else ""
        kind = Unavailable if code not in _REASONS else FactoryError
        raise kind(f"{where}: {_REASONS.get(code, str(error))}") from None
    except (exceptions.BotoCoreError, ValueError) as error:
        kind = FactoryError if isinstance(error, ValueError) else Unavailable
        raise kind(f"{where}: {error}; check the network and AWS_ENDPOINT_URL") from None


def error_code(error: Any) -> str:
    """The code that S3 gave an error: `NoSuchKey`, `PreconditionFailed`; of a HEAD only the status, `404`."""
    return str(error.response.get("Error", {}).get("Code", ""))
