"""A resource as one would write it as YAML. Pure."""

from typing import Any

from finetune_operator.resources.common import API_VERSION

Object = dict[str, Any]
DIGEST_ANNOTATION = "finetune.dev/request-digest"
"""Of the body that made a resource: with the same key another one is a conflict."""
HIDDEN_ANNOTATIONS = frozenset({DIGEST_ANNOTATION, "kubectl.kubernetes.io/last-applied-configuration"})


def shown_manifest(kind: str, body: Object) -> Object:
    """The resource as one would write it as YAML: without what the API server and the operator add."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    shown = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "labels": metadata.get("labels"),
        "annotations": {name: value for name, value in annotations.items() if name not in HIDDEN_ANNOTATIONS},
    }
    kept = {name: value for name, value in shown.items() if value}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": kept, "spec": body["spec"]}
