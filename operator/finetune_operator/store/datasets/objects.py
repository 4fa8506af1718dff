"""Objects of an S3-compatible store, brought into the work directory before they are read.

The credentials come from the variables that every S3 client reads, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`,
which the pod fills from a Secret; where they are absent the store is asked anonymously.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import s3fs  # type: ignore[import-untyped]  # no stubs exist
from botocore.exceptions import (  # type: ignore[import-untyped]  # as above
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
)
from s3fs.core import S3_RETRYABLE_ERRORS  # type: ignore[import-untyped]  # as above

from finetune_operator.contract.dataset import ObjectSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.redaction import blanked
from finetune_operator.logs import get_logger
from finetune_operator.store.datasets.space import FULL, storage_exceeded, too_large

KEY_VARIABLE = "AWS_ACCESS_KEY_ID"
SECRET_VARIABLE = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the variable's name, not a secret
TOKEN_VARIABLE = "AWS_SESSION_TOKEN"  # noqa: S105 - the variable's name, not a secret
BLOCK_BYTES = 8 * 1024 * 1024
MESSAGE_MAX_CHARACTERS = 300
CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
TRIES = 5
BACKOFF_FIRST_SECONDS = 1.0
# Request Timeout, Conflict, Too Early, Too Many Requests.
PASSING_STATUSES = frozenset({408, 409, 425, 429})

logger = get_logger(__name__)


class Unfetched(Exception):
    """The object did not arrive this time; the text is the store's or the network's."""


class _Copy(NamedTuple):
    """Which object goes where."""

    source: ObjectSource
    path: str
    target: Path
    max_bytes: int


def fetch(source: ObjectSource, environment: Mapping[str, str], work: Path, max_bytes: int) -> Path:
    """Copy the object; returns the file. What may pass is tried `TRIES` times. Raises `Refused` with what to change."""
    address = urlsplit(source.url)
    if address.scheme != "s3" or not address.netloc or not address.path.strip("/"):
        raise _refused(source, "is no address of an object", "write dataset.s3.url as s3://bucket/key")
    secret = environment.get(SECRET_VARIABLE)
    store = s3fs.S3FileSystem(
        anon=secret is None,
        key=environment.get(KEY_VARIABLE),
        secret=secret,
        token=environment.get(TOKEN_VARIABLE),
        endpoint_url=source.endpoint,
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": READ_TIMEOUT_SECONDS,
            "retries": {"max_attempts": 0},
        },
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    # Tried again here alone, so that the tries of three layers do not multiply.
    store.retries = 1
    wanted = _Copy(source, f"{address.netloc}{address.path}", work / "object", max_bytes)
    for number in range(1, TRIES + 1):
        try:
            _copy(store, wanted)
        except Unfetched as error:
            words = blanked(" ".join(str(error).split()), [secret, environment.get(TOKEN_VARIABLE)])
            words = words[:MESSAGE_MAX_CHARACTERS]
            logger.warning("the object did not arrive", url=source.url, tried=number, error=words)
            if number == TRIES:
                raise Refused.because(
                    FailureReason.DATASET_UNAVAILABLE,
                    f"{source.url} can't be fetched: {words}",
                    "check dataset.s3.endpoint and that it is reachable from this namespace",
                ) from None
            time.sleep(BACKOFF_FIRST_SECONDS * 2 ** (number - 1))
        else:
            break
    return wanted.target


def _copy(store: s3fs.S3FileSystem, wanted: _Copy) -> None:
    """Raises `Refused` for what stays as it is, and `Unfetched` for what may pass."""
    try:
        with (
            store.open(wanted.path, "rb", block_size=BLOCK_BYTES, cache_type="none") as remote,
            wanted.target.open("wb") as file,
        ):
            if remote.size > wanted.max_bytes:
                raise too_large(wanted.max_bytes)
            while block := remote.read(BLOCK_BYTES):
                file.write(block)
            if file.tell() != remote.size:
                raise Unfetched(f"it ended after {file.tell()} of {remote.size} bytes")
    except FileNotFoundError:
        raise _refused(wanted.source, "does not exist", "correct dataset.s3.url") from None
    except PermissionError:
        raise _refused(
            wanted.source,
            "may not be read with these credentials",
            f"check {KEY_VARIABLE} and {SECRET_VARIABLE} in the Secret that dataset.s3.secretRef names",
        ) from None
    except (OSError, ClientError, BotoCoreError, *S3_RETRYABLE_ERRORS) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise storage_exceeded(str(error)) from None
        if _is_final(error):
            remedy = "correct dataset.s3.url and dataset.s3.endpoint, by what the store says"
            raise _refused(wanted.source, f"is refused by the store: {error}", remedy) from None
        raise Unfetched(str(error)) from error


def _is_final(error: Exception) -> bool:
    """Whether the store understood the request and refused it, or none can be made of what is set."""
    cause = error if isinstance(error, ClientError) else error.__cause__
    if isinstance(cause, ClientError):
        status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return 300 <= status < 500 and status not in PASSING_STATUSES
    return isinstance(error, ParamValidationError | NoCredentialsError)


def _refused(source: ObjectSource, what: str, remedy: str) -> Refused:
    return Refused.because(FailureReason.DATASET_INVALID, f"{source.url} {what}", remedy)
