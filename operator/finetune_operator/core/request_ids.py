"""Request ids that tell which version was asked, so that a judgement of the answer counts for that version alone.

The gateway makes them and the api reads them; the code at the end has it that nobody makes one who does not hold the
internal token. Nothing has to be stored for the many requests that nobody judges. One that failed has such an id, too:
who got an error from a version may well say what that is worth.
"""

import hmac
from base64 import urlsafe_b64encode

CODE_BYTES = 16
SEPARATOR = "."


def signed_request_id(request_id: str, version_uid: str, key: str) -> str:
    """The id with the version's uid; `key` is what gateway and api share."""
    told = f"{request_id}{SEPARATOR}{version_uid}"
    return f"{told}{SEPARATOR}{_code(told, key)}"


def version_of(request_id: str, key: str) -> str | None:
    """The uid of the version that was asked; None of any other id: a base model's answer has one, or nobody's."""
    told, _, code = request_id.rpartition(SEPARATOR)
    _, separator, version_uid = told.rpartition(SEPARATOR)
    if not separator or not hmac.compare_digest(code.encode(), _code(told, key).encode()):
        return None
    return version_uid


def _code(told: str, key: str) -> str:
    digest = hmac.digest(key.encode(), f"request-id {told}".encode(), "sha256")
    return urlsafe_b64encode(digest[:CODE_BYTES]).decode().rstrip("=")
