"""A live copy of all objects of one kind, kept current for ever; what the gateway routes by."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from finetune_operator.kube.errors import KubeError

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 15.0

logger = logging.getLogger(__name__)


class Source(Protocol):
    """The part of `KubeClient` that a mirror needs."""

    async def list(
        self, plural: str, namespace: str | None, selector: str = ""
    ) -> tuple[list[dict[str, Any]], str]: ...

    def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]: ...


class Mirror:
    """Objects by (namespace, name). While the API server is away, the last known ones stay."""

    def __init__(self, source: Source, plural: str, namespace: str | None, on_change: Callable[[], None]) -> None:
        self._source = source
        self._plural = plural
        self._namespace = namespace
        self._on_change = on_change
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.listed = asyncio.Event()
        self._backoff_seconds = BACKOFF_FIRST_SECONDS

    async def run(self) -> None:
        """List and watch until cancelled; failures are logged and tried again with a capped, jittered backoff."""
        while True:
            try:
                await self._follow()
            except KubeError as error:
                logger.warning("mirror of %s interrupted: %s", self._plural, error)
                await asyncio.sleep(self._backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                self._backoff_seconds = min(BACKOFF_MAX_SECONDS, self._backoff_seconds * 2)

    async def _follow(self) -> None:
        items, version = await self._source.list(self._plural, self._namespace)
        self.objects = {_key(item): item for item in items}
        self.listed.set()
        self._on_change()
        while True:
            async for kind, item in self._source.watch(self._plural, self._namespace, version):
                version = item["metadata"]["resourceVersion"]
                self._backoff_seconds = BACKOFF_FIRST_SECONDS
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    self.objects.pop(_key(item), None)
                else:
                    self.objects[_key(item)] = item
                self._on_change()


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
