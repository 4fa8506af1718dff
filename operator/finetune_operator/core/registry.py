"""All ModelVersions as one document: a record of what there is and was, and what `kubectl apply` takes to restore it.

The API server ignores a status in what is applied, hence it does not restore which version was promoted last; pinning
the active ones does.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from finetune_operator.core.routing import active_version
from finetune_operator.resources.common import API_VERSION
from finetune_operator.resources.modelversion import KIND, ModelVersion, RequestedState

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
RECORDED_STATUS = ("state", "message", "servedName", "promotedAt", "metrics", "evaluation", "history")
"""What is a version's own; engines and conditions belong to the cluster that it was in."""

Object = dict[str, Any]


def registry(bodies: Iterable[Mapping[str, Any]], *, pin_active: bool = False) -> Object:
    """A List, ordered by namespace, model and version; with `pin_active` the active versions say so in their specs."""
    found = sorted(
        ((ModelVersion.parse(body), body["spec"]) for body in bodies),
        key=lambda pair: (pair[0].metadata.namespace, pair[0].spec.model, pair[0].spec.version),
    )
    families: dict[tuple[str, str], list[ModelVersion]] = {}
    for version, _ in found:
        families.setdefault((version.metadata.namespace, version.spec.model), []).append(version)
    actives = {active.metadata.uid for family in families.values() if (active := active_version(family))}
    pins = actives if pin_active else ()
    items = [_entry(version, spec, pinned=version.metadata.uid in pins) for version, spec in found]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _entry(version: ModelVersion, spec: Object, *, pinned: bool) -> Object:
    """The spec as it is, fields of a later release included."""
    metadata, status = version.metadata, version.status.to_dict()
    annotations = {name: value for name, value in metadata.annotations.items() if name != LAST_APPLIED}
    kept: Object = {"name": metadata.name, "namespace": metadata.namespace}
    if metadata.labels:
        kept["labels"] = dict(metadata.labels)
    if annotations:
        kept["annotations"] = annotations
    spec = spec | ({"state": RequestedState.DEPLOYED.value} if pinned else {})
    recorded = {name: status[name] for name in RECORDED_STATUS if name in status}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": kept, "spec": spec, "status": recorded}
