"""Objects of an S3-compatible store, brought into the work directory before they are read.

The credentials come from the variables that every S3 client reads, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`,
which the pod fills from a Secret; where they are absent the store is asked anonymously.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import s3fs  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from finetune_operator.contract.dataset import ObjectSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.datasets import Refused
from finetune_operator.core.redaction import blanked

KEY_VARIABLE = "AWS_ACCESS_KEY_ID"
SECRET_VARIABLE = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the variable's name, not a secret
TOKEN_VARIABLE = "AWS_SESSION_TOKEN"  # noqa: S105 - the variable's name, not a secret
BLOCK_BYTES = 8 * 1024 * 1024
MESSAGE_MAX_CHARACTERS = 300
CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60


def fetch(source: ObjectSource, environment: Mapping[str, str], work: Path) -> Path:
    """Copy the object; returns the file. Raises `Refused` with what to change."""
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
        config_kwargs={"connect_timeout": CONNECT_TIMEOUT_SECONDS, "read_timeout": READ_TIMEOUT_SECONDS},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    target = work / "object"
    try:
        with (
            store.open(f"{address.netloc}{address.path}", "rb", block_size=BLOCK_BYTES, cache_type="none") as remote,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(remote, file, BLOCK_BYTES)
    except FileNotFoundError:
        raise _refused(source, "does not exist", "correct dataset.s3.url") from None
    except PermissionError:
        raise _refused(
            source,
            "may not be read with these credentials",
            f"check {KEY_VARIABLE} and {SECRET_VARIABLE} in the Secret that dataset.s3.secretRef names",
        ) from None
    except (OSError, ClientError, BotoCoreError) as error:
        words = blanked(" ".join(str(error).split()), [secret, environment.get(TOKEN_VARIABLE)])
        raise _refused(
            source,
            f"can't be fetched: {words[:MESSAGE_MAX_CHARACTERS]}",
            "check dataset.s3.endpoint and that it is reachable from this namespace",
        ) from None
    return target


def _refused(source: ObjectSource, what: str, remedy: str) -> Refused:
    return Refused.because(FailureReason.DATASET_INVALID, f"{source.url} {what}", remedy)
