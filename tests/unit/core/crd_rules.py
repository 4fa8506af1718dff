"""The rules that a CRD's schema has anywhere."""

from collections.abc import Iterator
from typing import Any


def entries_of(schema: Any) -> Iterator[dict[str, str]]:
    """Entries of `x-kubernetes-validations`."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "x-kubernetes-validations":
                yield from value
            else:
                yield from entries_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from entries_of(value)
