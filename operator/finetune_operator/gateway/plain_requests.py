"""The head of a completion request as all common clients send it; whatever is not quite like that is left to aiohttp.

So nothing here has to be lenient: no chunked or compressed bodies, no `Expect`, no HTTP/1.0, no folded lines.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

HEAD_MAX_BYTES = 16 * 1024
# Possessive, since a blank after the colon fits two parts: what fails must not be tried again in every other way.
_HEADERS = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[ \t]*+[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_LENGTH = re.compile(r"[0-9]{1,15}")
_NOT_PLAIN = frozenset(("content-encoding", "expect", "te", "trailer", "transfer-encoding", "upgrade"))
_ONCE = frozenset(("connection", "content-length"))


@dataclass(frozen=True)
class PlainHead:
    """Names are in lower case; of a header that comes twice, the first counts."""

    path: str
    headers: dict[str, str]
    body_bytes: int


class HeadReader:
    """Knows the paths whose POST may be plain."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = {f"POST {path} HTTP/1.1".encode(): path for path in paths}

    def may_become_plain(self, received: bytes) -> bool:
        """Whether the rest of a head, which has not come whole yet, is worth waiting for."""
        if len(received) > HEAD_MAX_BYTES or received.count(b"\n") > received.count(b"\r\n"):
            return False
        lines = (line + b"\r\n" for line in self._paths)
        return any(received.startswith(line) or line.startswith(received) for line in lines)

    def read(self, head: bytes) -> PlainHead | None:
        """Of a head without the empty line at its end; None where it is for aiohttp."""
        first, _, rest = head.partition(b"\r\n")
        path = self._paths.get(first)
        if path is None or len(head) > HEAD_MAX_BYTES:
            return None
        lines = rest.decode("utf-8", "surrogateescape")
        if not _HEADERS.fullmatch(f"{lines}\r\n"):
            return None
        headers: dict[str, str] = {}
        for line in lines.split("\r\n"):
            told, _, value = line.partition(":")
            name = told.lower()
            if name in _NOT_PLAIN or (name in _ONCE and name in headers):
                return None
            headers.setdefault(name, value.strip(" \t"))
        length = headers.get("content-length", "")
        if not _LENGTH.fullmatch(length) or headers.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        return PlainHead(path, headers, int(length))
