"""The API server as far as plans need it."""

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from finetune_operator.kube.errors import Conflict, NotFound
from tests.builders import Object


class FakeCluster:
    """Objects by kind and name, with the API server's rules on names, uids and resource versions; writes are kept."""

    def __init__(self, *objects: tuple[str, Object]) -> None:
        self.writes: list[tuple[str, ...]] = []
        self.bodies: list[Object] = []
        self.failures: dict[str, Exception] = {}
        self.objects = {(plural, body["metadata"]["name"]): deepcopy(body) for plural, body in objects}
        self._version = 100

    async def get(self, plural: str, namespace: str, name: str) -> Object:
        if (plural, name) not in self.objects:
            raise NotFound(name)
        return deepcopy(self.objects[plural, name])

    async def list(self, plural: str, namespace: str, selector: str = "") -> tuple[list[Object], str]:
        found = [deepcopy(body) for (kind, _), body in self.objects.items() if kind == plural]
        return found, str(self._version)

    async def create(self, plural: str, namespace: str, body: Mapping[str, Any]) -> Object:
        name = body["metadata"]["name"]
        self._write("create", plural, "" if plural == "events" else name, body=body)
        if (plural, name) in self.objects:
            raise Conflict(f"{name} exists")
        made = dict(body) | {"metadata": {"namespace": namespace, "uid": f"uid-of-{name}"} | body["metadata"]}
        return self._store(plural, name, made)

    async def apply(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], field_manager: str
    ) -> Object:
        self._write("apply", plural, name, field_manager, body=body)
        # So that others come in between, as while a real one is waited for.
        await asyncio.sleep(0)
        known = self.objects.get((plural, name), {"metadata": {"namespace": namespace, "uid": f"uid-of-{name}"}})
        return self._store(plural, name, dict(body) | {"metadata": known["metadata"] | body["metadata"]})

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        self._write("patch", plural, name, subresource, body=body)
        known = await self.get(plural, namespace, name)
        expected = body.get("metadata", {}).get("resourceVersion")
        if expected not in (None, known["metadata"]["resourceVersion"]):
            raise Conflict("somebody wrote in between")
        if "ownerReferences" in body.get("metadata", {}):
            return self._store(plural, name, known | {"metadata": known["metadata"] | body["metadata"]})
        part = "status" if subresource else "spec"
        return self._store(plural, name, known | {part: known.get(part, {}) | body[part]})

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None:
        self._write("delete", plural, name, uid)
        if (await self.get(plural, namespace, name))["metadata"]["uid"] != uid:
            raise Conflict("another object of that name")
        del self.objects[plural, name]

    def _write(self, verb: str, plural: str, *rest: str, body: Mapping[str, Any] | None = None) -> None:
        self.writes.append((verb, plural, *(part for part in rest if part)))
        self.bodies.append(dict(body or {}))
        if error := self.failures.get(plural):
            raise error

    def _store(self, plural: str, name: str, body: Object) -> Object:
        self._version += 1
        stored = deepcopy(body) | {"metadata": body["metadata"] | {"resourceVersion": str(self._version)}}
        self.objects[plural, name] = stored
        return deepcopy(stored)
