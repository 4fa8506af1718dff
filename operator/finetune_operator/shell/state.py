"""What the operator knows of the cluster: the watches' objects, and its own newest writes.

A write's answer counts at once, so that a reconcile right after it does not decide on the state before; the watch
catches up by resource version.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeVar

from finetune_operator.core.managers import entries_about
from finetune_operator.manifests.common import (
    BATCH_UID_LABEL,
    ENGINE_LABEL,
    JOB_UID_LABEL,
    PREPARATION_LABEL,
    VERSION_UID_LABEL,
)
from finetune_operator.resources.common import Resource

Object = dict[str, Any]
Key = tuple[str, str, str]
R = TypeVar("R", bound=Resource)

GROUP_LABELS = (JOB_UID_LABEL, PREPARATION_LABEL, ENGINE_LABEL, VERSION_UID_LABEL, BATCH_UID_LABEL)
METADATA_FIELDS = (
    "name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels",
    "annotations", "ownerReferences",
)  # fmt: skip
GONE_MAX = 1024
"""Uids of deleted objects, the latest: an answer is late by milliseconds."""
JOB_SPEC_FIELDS = ("suspend", "ttlSecondsAfterFinished")
DEPLOYMENT_SPEC_FIELDS = ("replicas", "progressDeadlineSeconds")
ATTRIBUTED_FIELDS = ("state", "promotion")
"""Of a ModelVersion's spec: its history tells who has set them."""


class ClusterState:
    """Objects by (plural, namespace, name), and children by the group label of what they belong to."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._groups: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._parsed: dict[Key, tuple[str, Resource]] = {}
        self._gone: dict[str, None] = {}

    def see(self, plural: str, body: Mapping[str, Any]) -> None:
        """Keep the object, unless a newer state of it is known already: also that it is gone, since the answer to a
        write may be handled after the deletion that followed it.
        """
        if body["metadata"]["uid"] in self._gone:
            return
        key = _key(plural, body)
        known = self._objects.get(key)
        if known and resource_version(known) > resource_version(body):
            return
        if known:
            self._ungroup(key, known)
        slim = _slim(plural, body)
        self._objects[key] = slim
        if group := _group(slim):
            self._groups[(plural, group)].add(key)

    def forget(self, plural: str, body: Mapping[str, Any]) -> None:
        """The object is gone; a later one of the same name stays."""
        self._gone[body["metadata"]["uid"]] = None
        while len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
        key = _key(plural, body)
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != body["metadata"]["uid"]:
            return
        del self._objects[key]
        self._parsed.pop(key, None)
        self._ungroup(key, known)

    def keep_only(self, plural: str, namespace: str, bodies: list[Object], listed_at: str) -> list[Object]:
        """Take a listing of the resource version `listed_at` as the truth; returns what had vanished without an event.

        What was made after the listing, and is known already, is not missing.
        """
        for body in bodies:
            self.see(plural, body)
        alive = {body["metadata"]["uid"] for body in bodies}
        gone = [
            item
            for item in self.all(plural, namespace)
            if item["metadata"]["uid"] not in alive and resource_version(item) <= int(listed_at)
        ]
        for item in gone:
            self.forget(plural, item)
        return gone

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        return self._objects.get((plural, namespace, name))

    def all(self, plural: str, namespace: str) -> list[Object]:
        return [item for (p, ns, _), item in self._objects.items() if p == plural and ns == namespace]

    def group(self, plural: str, label_value: str) -> list[Object]:
        """Children whose group label has this value."""
        return [self._objects[key] for key in sorted(self._groups.get((plural, label_value), ()))]

    def resource(self, kind: type[R], plural: str, namespace: str, name: str) -> R | None:
        """A custom resource as its model, parsed once per version."""
        key = (plural, namespace, name)
        body = self._objects.get(key)
        if body is None:
            return None
        version = body["metadata"]["resourceVersion"]
        known = self._parsed.get(key)
        if known and known[0] == version and isinstance(known[1], kind):
            return known[1]
        parsed = kind.parse(body)
        self._parsed[key] = (version, parsed)
        return parsed

    def resources(self, kind: type[R], plural: str, namespace: str) -> tuple[R, ...]:
        """All custom resources of one kind in a namespace."""
        names = sorted(name for (p, ns, name) in self._objects if p == plural and ns == namespace)
        found = (self.resource(kind, plural, namespace, name) for name in names)
        return tuple(item for item in found if item is not None)

    def _ungroup(self, key: Key, body: Object) -> None:
        group = (key[0], _group(body) or "")
        self._groups[group].discard(key)
        if not self._groups[group]:
            del self._groups[group]


def _key(plural: str, body: Mapping[str, Any]) -> Key:
    return plural, body["metadata"]["namespace"], body["metadata"]["name"]


def resource_version(body: Mapping[str, Any]) -> int:
    """Of one kind, a later write has a larger one; 0 where there is none."""
    return int(body["metadata"].get("resourceVersion") or 0)


def _group(body: Mapping[str, Any]) -> str | None:
    labels = body["metadata"].get("labels") or {}
    return next((labels[name] for name in GROUP_LABELS if name in labels), None)


def _slim(plural: str, body: Mapping[str, Any]) -> Object:
    """Only what reconciles read; pod specs and managed fields are most of a cluster's memory."""
    metadata = {name: body["metadata"][name] for name in METADATA_FIELDS if name in body["metadata"]}
    status = body.get("status") or {}
    match plural:
        case "pods":
            metadata.pop("annotations", None)
            return {"metadata": metadata, "status": status}
        case "jobs":
            spec = {name: body["spec"][name] for name in JOB_SPEC_FIELDS if name in body["spec"]}
            return {"metadata": metadata, "spec": spec, "status": status}
        case "deployments":
            spec = {name: body["spec"][name] for name in DEPLOYMENT_SPEC_FIELDS if name in body["spec"]}
            return {"metadata": metadata, "spec": spec, "status": status}
        case "modelversions":
            metadata["managedFields"] = entries_about(body["metadata"].get("managedFields", ()), ATTRIBUTED_FIELDS)
    return {"kind": body["kind"], "metadata": metadata, "spec": body["spec"], "status": status}
