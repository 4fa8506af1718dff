"""Who asked the API server for what, from its own audit log."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_operator.resources.common import GROUP

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One answered request."""

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    body: Any

    @property
    def is_write(self) -> bool:
        return self.verb in WRITE_VERBS

    @property
    def is_event(self) -> bool:
        return self.resource == "events"

    @property
    def touches_a_spec(self) -> bool:
        """A change of one of our kinds beside its status."""
        ours = self.group == GROUP and self.verb != "create" and self.is_write
        return ours and self.subresource != "status"

    @property
    def is_progress(self) -> bool:
        status = self.body.get("status", {}) if isinstance(self.body, dict) else {}
        return self.resource == "finetunejobs" and "progress" in status

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what} {self.name} -> {self.code}"


class AuditLog:
    """Requests in the order of their answers; only one user's, and only of one namespace where that is given."""

    def __init__(self, path: Path, user: str) -> None:
        self._path = path
        self._user = user

    def end(self) -> int:
        """A mark for `requests`: only what comes after it."""
        return self._path.stat().st_size

    def requests(self, namespace: str | None = None, after: int = 0) -> list[Request]:
        wanted = (namespace,) if namespace else None
        return [request for request in self._read(after) if wanted is None or request.namespace in wanted]

    def writes(self, namespace: str | None = None, after: int = 0) -> list[Request]:
        return [request for request in self.requests(namespace, after) if request.is_write]

    def _read(self, after: int) -> Iterator[Request]:
        with self._path.open("rb") as file:
            file.seek(after)
            for line in file:
                # The API server may be in the middle of writing the last one.
                if line.endswith(b"\n") and self._user.encode() in line:
                    entry = json.loads(line)
                    if entry["user"]["username"] == self._user:
                        yield _request(entry)


def granted(rules: Iterable[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Every (group, resource, verb) that a Role's rules allow."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(requests: Iterable[Request]) -> set[tuple[str, str, str]]:
    """Every (group, resource, verb) that was needed; a server-side apply that makes an object needs `create` too."""
    needed = set()
    for request in requests:
        resource = f"{request.resource}/{request.subresource}".rstrip("/")
        needed.add((request.group, resource, request.verb))
        if request.verb == "patch" and request.code == 201:
            needed.add((request.group, resource, "create"))
    return needed


def _request(entry: dict[str, Any]) -> Request:
    target = entry.get("objectRef", {})
    return Request(
        user=entry["user"]["username"],
        verb=entry["verb"],
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=entry.get("responseStatus", {}).get("code", 0),
        body=entry.get("requestObject"),
    )
