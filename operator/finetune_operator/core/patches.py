"""JSON merge patches (RFC 7386): the smallest write that turns one document into another."""

from collections.abc import Mapping
from typing import Any


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What to send; empty when nothing changed. Removed keys become null, lists are replaced whole."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            if nested := merge_patch(before[key], value):
                patch[key] = nested
        elif value != before[key]:
            patch[key] = value
    return patch
