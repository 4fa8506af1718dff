"""Names of resources in REST: `<namespace>.<name>`. A namespace has no dot, so that the first one splits them."""

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fastapi import Query

NAMESPACE_PATTERN = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
NAME_PATTERN = r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?"
NAME_ALONE_PATTERN = r"[a-z0-9](?:[-a-z0-9]{0,251}[a-z0-9])?"
"""Without a dot, before which there would be a namespace."""
ID = rf"(?:{NAMESPACE_PATTERN}\.{NAME_PATTERN}|{NAME_ALONE_PATTERN})"
ID_PATTERN = f"^{ID}$"

NamespaceQuery = Annotated[str | None, Query(pattern=f"^{NAMESPACE_PATTERN}$")]


class WrongId(ValueError):
    """It names nothing; the text says how to write it."""


class ObjectId(NamedTuple):
    """One resource of a kind that is known from elsewhere."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


def parse_id(text: str, namespaces: Sequence[str]) -> ObjectId:
    """A name without a namespace is enough where the api serves exactly one. Raises `WrongId`."""
    namespace, dot, name = text.partition(".")
    if not dot:
        if len(namespaces) != 1:
            raise WrongId(f"{text!r} names no namespace: write <namespace>.{text}")
        namespace, name = namespaces[0], text
    if not (re.fullmatch(NAMESPACE_PATTERN, namespace) and re.fullmatch(NAME_PATTERN, name)):
        raise WrongId(f"{text!r} is no id: write <namespace>.<name>, as Kubernetes has them")
    return ObjectId(namespace, name)
