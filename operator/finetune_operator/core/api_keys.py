"""How an API key is written and recognised. Pure: whoever makes one brings the randomness.

`ftk_<id>_<secret>`: the id finds the key in the database, where only a digest of the secret is kept. The secret is 256
random bits, so that a plain SHA-256 can't be guessed, and nobody needs to be locked out.
"""

import base64
import hashlib
import hmac
import re
from typing import NamedTuple

PREFIX = "ftk_"
ID_BYTES, SECRET_BYTES = 8, 32
ID_PATTERN = r"[0-9a-f]{16}"
KEY = re.compile(rf"{PREFIX}(?P<id>{ID_PATTERN})_(?P<secret>[-_A-Za-z0-9]{{43}})")


class ApiKey(NamedTuple):
    """The two parts of a key; the secret is shown once and never kept."""

    id: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r})"


def new_key(random_bytes: bytes) -> ApiKey:
    """Of `ID_BYTES + SECRET_BYTES` random bytes."""
    if len(random_bytes) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"an API key is made of {ID_BYTES + SECRET_BYTES} bytes, not {len(random_bytes)}")
    secret = base64.urlsafe_b64encode(random_bytes[ID_BYTES:]).decode().rstrip("=")
    return ApiKey(random_bytes[:ID_BYTES].hex(), secret)


def parsed_key(text: str) -> ApiKey | None:
    """None for what is no API key."""
    found = KEY.fullmatch(text)
    return ApiKey(found["id"], found["secret"]) if found else None


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def is_secret(shown: str, digest: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(digest_of(shown), digest)
