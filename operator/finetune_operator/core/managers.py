"""Who has set a field of a spec, as the API server remembers it in metadata.managedFields.

A manager is a program (`kubectl-patch`, `argocd-controller`). Of persons it knows those for whom our api, gateway or
command line wrote (`ada (finetune-api)`); all others are in the API server's audit log.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from finetune_operator.resources.common import Resource

NEVER = datetime.min.replace(tzinfo=UTC)


def manager_of(resource: Resource, spec_field: str) -> str | None:
    """Whoever set it last; of a field that was removed, nobody is remembered."""
    owners = [
        (entry.time or NEVER, entry.manager)
        for entry in resource.metadata.managed_fields
        if f"f:{spec_field}" in entry.fields_v1.get("f:spec", {})
    ]
    return max(owners)[1] if owners else None


def entries_about(entries: Iterable[Mapping[str, Any]], spec_fields: Iterable[str]) -> list[dict[str, Any]]:
    """Only what `manager_of` asks about these fields: the whole is often larger than the object."""
    wanted = {f"f:{name}" for name in spec_fields}
    found = []
    for entry in entries:
        owned = wanted & entry.get("fieldsV1", {}).get("f:spec", {}).keys()
        if owned:
            kept = {name: entry[name] for name in ("manager", "time") if name in entry}
            found.append(kept | {"fieldsV1": {"f:spec": {name: {} for name in sorted(owned)}}})
    return found
