"""Which fields of a FineTuneJob say how one training goes, and which say what it is. Pure."""

from collections.abc import Mapping
from typing import Any

OWN_SWITCHES = frozenset({"suspend", "cancel"})


def repeated_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Of a new training that does the same."""
    return {field: value for field, value in spec.items() if field not in OWN_SWITCHES}
