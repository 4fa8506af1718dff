"""Keeps the route table current from live copies of the ModelVersions and ABTests."""

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

import pydantic

from finetune_operator.core.routing import EngineUrl, Meaning, RouteTable, Split, Target, build_routes
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.kube.mirror import Mirror, Source
from finetune_operator.logs import get_logger
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.common import Resource
from finetune_operator.resources.modelversion import ModelVersion

KIND_PLURALS: dict[type[Resource], str] = {ModelVersion: "modelversions", ABTest: "abtests"}
ResourceType = TypeVar("ResourceType", bound=Resource)

logger = get_logger(__name__)


class RouteKeeper:
    """`table` is swapped whole, as are the `versions`; while the API server is away, the last ones stay."""

    def __init__(self, source: Source, namespaces: Iterable[str], engine_url: EngineUrl, metrics: Metrics) -> None:
        self.table = RouteTable()
        self.versions: tuple[ModelVersion, ...] = ()
        self._engine_url = engine_url
        self._metrics = metrics
        self._mirrors = {
            (kind, namespace): Mirror(source, plural, namespace, self._schedule)
            for namespace in namespaces
            for kind, plural in KIND_PLURALS.items()
        }
        self._parsed: dict[tuple[type[Resource], str], tuple[str, Resource]] = {}
        self._scheduled = False
        self._swapped = asyncio.Event()

    @property
    def missing(self) -> tuple[str, ...]:
        """What has never been listed yet; nothing is routed before all is known, lest a split be overlooked."""
        return tuple(
            f"{KIND_PLURALS[kind]} in {namespace}"
            for (kind, namespace), mirror in self._mirrors.items()
            if not mirror.listed.is_set()
        )

    def version(self, uid: str | None) -> ModelVersion | None:
        """The same object until the resource changes."""
        entry = self._parsed.get((ModelVersion, uid)) if uid else None
        return entry[1] if entry and isinstance(entry[1], ModelVersion) else None

    async def swapped(self) -> None:
        """Until the table is another one."""
        await self._swapped.wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for (kind, namespace), mirror in self._mirrors.items():
                tasks.create_task(mirror.run(), name=f"mirror of {KIND_PLURALS[kind]} in {namespace}")

    def _schedule(self) -> None:
        """Many changes of one moment make one new table."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._scheduled = False
        if self.missing:
            return
        unreadable: list[str] = []
        self.versions = tuple(self._read(ModelVersion, unreadable))
        tests = self._read(ABTest, unreadable)
        self._metrics.unreadable_resources.set(len(unreadable))
        table = build_routes(self.versions, tests, self._engine_url)
        if table == self.table:
            return
        _log_aliases(self.table, table)
        self.table = table
        self._swapped.set()
        self._swapped = asyncio.Event()
        self._metrics.routes.set(len(table.routes))
        self._metrics.route_changes.inc()

    def _read(self, kind: type[ResourceType], unreadable: list[str]) -> list[ResourceType]:
        """All resources of a kind; parsed again only if they changed."""
        found: dict[str, tuple[str, ResourceType]] = {}
        for (mirrored, _), mirror in self._mirrors.items():
            if mirrored is kind:
                for body in mirror.objects.values():
                    uid, version = body["metadata"]["uid"], body["metadata"]["resourceVersion"]
                    if entry := self._entry(kind, uid, version, body, unreadable):
                        found[uid] = entry
        self._parsed = {key: entry for key, entry in self._parsed.items() if key[0] is not kind}
        self._parsed |= {(kind, uid): entry for uid, entry in found.items()}
        return [resource for _, resource in found.values()]

    def _entry(
        self, kind: type[ResourceType], uid: str, version: str, body: dict[str, Any], unreadable: list[str]
    ) -> tuple[str, ResourceType] | None:
        known = self._parsed.get((kind, uid))
        last = (known[0], known[1]) if known and isinstance(known[1], kind) else None
        if last and last[0] == version:
            return last
        try:
            return version, kind.parse(body)
        except pydantic.ValidationError as error:
            name = body["metadata"].get("name")
            logger.error("resource unreadable", kind=kind.__name__, name=name, error=str(error), last_used=bool(last))
            unreadable.append(uid)
            return last


def _log_aliases(before: RouteTable, after: RouteTable) -> None:
    old = {route.qualified_name: route.destination for route in before.routes if route.meaning is Meaning.ALIAS}
    for route in after.routes:
        if route.meaning is Meaning.ALIAS and old.get(route.qualified_name) != route.destination:
            logger.info("alias changed", alias=route.qualified_name, answerer=_describe(route.destination))


def _describe(destination: object) -> str:
    match destination:
        case Target(served_name=name):
            return name
        case Split(test_name=test, candidate_percent=percent, shadow_percent=copied):
            return f"ABTest {test}, {percent} % candidate, {copied} % of the others copied"
        case _:
            return "none"
