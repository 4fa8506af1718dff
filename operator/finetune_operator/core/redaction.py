"""Secrets taken out of what libraries and servers say, before anybody reads it or it is cut short."""

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

BLANK = "***"


def blanked(text: str, secrets: Iterable[str | None]) -> str:
    """The text without the secrets, as they are and as they are written in URLs, JSON, SQL and connection strings."""
    for spelling in sorted(
        {each for secret in secrets if secret for each in _spellings(secret)}, key=len, reverse=True
    ):
        text = text.replace(spelling, BLANK)
    return text


def _spellings(secret: str) -> Iterator[str]:
    """A message may also have its white space collapsed, to be of one line."""
    libpq = secret.replace("\\", "\\\\").replace("'", "\\'")
    python, of_json = repr(secret)[1:-1], json.dumps(secret)[1:-1]
    quoted = (quote(secret, safe=safe) for safe in ("", "/", " +"))
    sql = (secret.replace("'", "''"), libpq.replace("'", "''"))
    for text in (secret, libpq, *sql, python, of_json, *quoted, quote_plus(secret)):
        yield text
        if collapsed := " ".join(text.split()):
            yield collapsed
