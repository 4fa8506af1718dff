"""Where each kind that the product touches lives in the API server."""

import re

from finetune_operator.resources.common import API_VERSION

PREFIXES: dict[str, str] = {
    "finetunejobs": f"/apis/{API_VERSION}",
    "modelversions": f"/apis/{API_VERSION}",
    "abtests": f"/apis/{API_VERSION}",
    "batchinferences": f"/apis/{API_VERSION}",
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "pods": "/api/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "events": "/api/v1",
    "serviceaccounts": "/api/v1",
    "selfsubjectreviews": "/apis/authentication.k8s.io/v1",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1",
}
PLURALS: dict[str, str] = {
    "FineTuneJob": "finetunejobs",
    "ModelVersion": "modelversions",
    "ABTest": "abtests",
    "BatchInference": "batchinferences",
    "Job": "jobs",
    "Deployment": "deployments",
    "Pod": "pods",
    "Service": "services",
    "ConfigMap": "configmaps",
    "Event": "events",
}

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
LABEL_MAX_CHARACTERS, NAME_MAX_CHARACTERS = 63, 253


def path_of(plural: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """URL path of a collection (no name), an object or a subresource; no namespace means all of them.

    Raises ValueError for what could make another path of it.
    """
    if namespace and not (len(namespace) <= LABEL_MAX_CHARACTERS and LABEL.fullmatch(namespace)):
        raise ValueError(f"{namespace!r} is no namespace")
    if name and not (len(name) <= NAME_MAX_CHARACTERS and SUBDOMAIN.fullmatch(name)):
        raise ValueError(f"{name!r} is no name of a resource")
    scope = f"/namespaces/{namespace}" if namespace else ""
    tail = "".join(f"/{part}" for part in (name, subresource) if part)
    return f"{PREFIXES[plural]}{scope}/{plural}{tail}"
