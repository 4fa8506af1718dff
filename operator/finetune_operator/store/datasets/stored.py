"""Files that the api keeps, brought into the work directory before they are read.

What broke off goes on where it ended, and is compared with the SHA-256 that the api tells and that an uploaded file's
id begins with.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.contract.dataset import StoredSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.internal_token import HOW_TO_WRITE, SENDABLE, UNSENDABLE
from finetune_operator.contract.places import INTERNAL_TOKEN_VARIABLE
from finetune_operator.core.redaction import blanked
from finetune_operator.logs import get_logger
from finetune_operator.store.datasets.space import too_large

UPLOAD_PREFIX = "file-"
TIMEOUT_SECONDS = 60.0
TRIES = 5
BACKOFF_FIRST_SECONDS = 1.0
MESSAGE_MAX_CHARACTERS = 300
NOT_FOUND, OK, PARTIAL, UNSATISFIABLE = 404, 200, 206, 416
REFUSING = frozenset({401, 403})

logger = get_logger(__name__)


class Unfetched(Exception):
    """The file did not arrive this time."""


def fetch_stored(source: StoredSource, environment: Mapping[str, str], work: Path, max_bytes: int) -> Path:
    """Copy the file, and return where it is. What may pass is tried `TRIES` times. Raises `Refused`."""
    if source.url is None:
        raise Refused.because(
            FailureReason.INVALID_CONFIG,
            f"{source.path} is kept by the api, and this operator knows none",
            "set FINETUNE_API_URL for the operator (the chart does), or use another source than spec.dataset.stored",
        )
    target, token = work / "stored", environment.get(INTERNAL_TOKEN_VARIABLE, "")
    if not SENDABLE.fullmatch(token):
        raise Refused.because(
            FailureReason.INVALID_CONFIG,
            UNSENDABLE,
            HOW_TO_WRITE,
        )
    for number in range(1, TRIES + 1):
        try:
            _copy(source, source.url, token, target, max_bytes)
        except Unfetched as error:
            words = blanked(str(error), [token])[:MESSAGE_MAX_CHARACTERS]
            logger.warning("the file did not arrive", path=source.path, tried=number, error=words)
            if number == TRIES:
                raise Refused.because(
                    FailureReason.DATASET_UNAVAILABLE,
                    f"{source.path} can't be fetched from the api: {words}",
                    "check that the api runs and is reachable from this namespace",
                ) from None
            time.sleep(BACKOFF_FIRST_SECONDS * 2 ** (number - 1))
        else:
            break
    return target


def _copy(source: StoredSource, url: str, token: str, target: Path, max_bytes: int) -> None:
    """Raises `Refused` for what stays as it is, and `Unfetched` for what may pass."""
    import httpx2  # only who fetches a file pays for it

    offset = target.stat().st_size if target.exists() else 0
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT_SECONDS) as response:
            _require_file(source, response.status_code)
            if response.status_code == UNSATISFIABLE:
                target.unlink()
                raise Unfetched("it is shorter than what had arrived before")
            digest = response.headers.get("etag", "").strip('"')
            with target.open("ab" if response.status_code == PARTIAL else "wb") as file:
                # As it comes: what a larger block waits for is lost where the connection breaks.
                for block in response.iter_raw():
                    if file.tell() + len(block) > max_bytes:
                        raise too_large(max_bytes)
                    file.write(block)
    except httpx2.HTTPError as error:
        raise Unfetched(f"{type(error).__name__} {error}") from None
    found = _sha256(target)
    identity = source.path.partition("/")[0]
    own = identity.removeprefix(UPLOAD_PREFIX) if identity.startswith(UPLOAD_PREFIX) else ""
    if found != digest or not found.startswith(own):
        target.unlink()
        raise Unfetched(f"it arrived damaged: its SHA-256 is {found}, the api says {digest}")


def _require_file(source: StoredSource, status: int) -> None:
    if status in (OK, PARTIAL, UNSATISFIABLE):
        return
    if status == NOT_FOUND:
        raise Refused.because(
            FailureReason.DATASET_INVALID,
            f"the api does not keep {source.path} (any more) for this namespace",
            "upload the file or export the dataset again, and name it in a new resource of this kind",
        )
    if status in REFUSING:
        raise Refused.because(
            FailureReason.DATASET_UNAVAILABLE,
            f"the api refused this namespace's internal token ({status})",
            "give this namespace the same internal-token as the api (the chart's secret.existingSecret)",
        )
    raise Unfetched(f"the api answered with {status}")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
