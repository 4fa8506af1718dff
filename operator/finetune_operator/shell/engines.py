"""Administration of vLLM engine pods, and what is known of the versions in each."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER, Adapter
from finetune_operator.core.workloads import PodFacts
from finetune_operator.logs import cause, get_logger
from finetune_operator.reconcile.engine_sharing import EnginePod, Refusal

LIST_TIMEOUT_SECONDS = 10.0
LOAD_TIMEOUT_SECONDS = 120.0
PROBE_TIMEOUT_SECONDS = 120.0
# A load changes several objects, each of which brings every version of the engine here: one listing is for all.
LISTING_SECONDS = 1.0
CONDITION_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,99}")
RETRYABLE_STATUSES = frozenset({401, 403, 408, 409, 425, 429})

logger = get_logger(__name__)


class EngineUnavailable(Exception):
    """The engine pod does not answer, or not yet as it should; try again."""


@dataclass
class PodMemory:
    """What this process has learnt of one pod; lost with the process and learnt again."""

    listed: Mapping[str, str] | None = None
    is_current: bool = False
    """Whether the last time that it was asked it did list them."""
    listed_at: float | None = None
    """By the clock of `Engines`; None where it has to be asked before it is believed."""
    changes: int = 0
    """Loads and unloads, counted as they begin and as they end."""
    probed: set[str] = field(default_factory=set)
    refused: dict[str, Refusal] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)


class Engines:
    """Admin calls go to single pods, never through the Service: each pod has adapters of its own."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_key: str,
        url_template: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._clock = clock
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._url_template = url_template
        self._memory: dict[str, PodMemory] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def observe(self, pods: tuple[PodFacts, ...], *, merged: bool = False) -> tuple[EnginePod, ...]:
        """The pods with their adapters, or with the `merged` model that they were started with.

        A pod that can't be asked just now keeps its last known listing.
        """
        return tuple(await asyncio.gather(*(self._observe(pod, merged) for pod in pods)))

    def forget(self, pod_uid: str) -> None:
        """The pod is gone."""
        self._memory.pop(pod_uid, None)
        self._locks.pop(pod_uid, None)

    async def load(self, pod_uid: str, ip: str, adapter: Adapter) -> None:
        """Load, check that it is listed, ask for one token. What goes wrong is remembered for the next observation."""
        async with self._learning(pod_uid, adapter.name) as memory:
            memory.refused.pop(adapter.name, None)
            await self._load_and_probe(memory, ip, adapter)

    async def probe(self, pod_uid: str, ip: str, name: str) -> None:
        """Ask the model that the pod was started with for one token; what goes wrong is remembered as of a load."""
        async with self._learning(pod_uid, name) as memory:
            self._note(memory, await self._models(ip))
            await self._probe(ip, name)
            memory.probed.add(name)

    @asynccontextmanager
    async def _learning(self, pod_uid: str, name: str) -> AsyncIterator[PodMemory]:
        """One call at a time; that it failed is known of this name until it succeeds."""
        async with self._locks.setdefault(pod_uid, asyncio.Lock()):
            memory = self._memory.setdefault(pod_uid, PodMemory())
            with _changing(memory):
                try:
                    yield memory
                except EngineUnavailable as error:
                    memory.failing[name] = str(error)
                    memory.listed_at = None
                    raise
            memory.failing.pop(name, None)

    async def _load_and_probe(self, memory: PodMemory, ip: str, adapter: Adapter) -> None:
        # Else the observation that this load was decided on has just listed them.
        if not memory.is_current or memory.listed is None:
            self._note(memory, await self._adapters(ip))
        if adapter.name not in (memory.listed or {}):
            refusal = await self._load(ip, adapter)
            if refusal:
                memory.refused[adapter.name] = refusal
                return
        listed, probed = await asyncio.gather(self._adapters(ip), self._probe(ip, adapter.name), return_exceptions=True)
        if isinstance(listed, BaseException):
            raise listed
        self._note(memory, listed)
        if adapter.name not in listed:
            raise EngineUnavailable(f"{adapter.name} was loaded but is not listed by the engine")
        if isinstance(probed, BaseException):
            raise probed
        memory.probed.add(adapter.name)

    async def unload(self, pod_uid: str, ip: str, name: str) -> None:
        """Take it out; that it is not there is success."""
        async with self._locks.setdefault(pod_uid, asyncio.Lock()):
            memory = self._memory.setdefault(pod_uid, PodMemory())
            with _changing(memory):
                memory.listed_at = None
                body = {"lora_name": name}
                status, text = await self._post(ip, "/v1/unload_lora_adapter", body, LIST_TIMEOUT_SECONDS)
                if status >= 400 and status != 404:
                    raise EngineUnavailable(f"unloading {name} answered {status}: {text[:300]}")
                memory.probed.discard(name)
                self._note(memory, await self._adapters(ip))

    async def _observe(self, pod: PodFacts, merged: bool) -> EnginePod:
        memory = self._memory.setdefault(pod.uid, PodMemory())
        if not pod.ready:
            memory.listed_at = None
        elif pod.ip and not self._is_fresh(memory):
            changes = memory.changes
            try:
                listed = await (self._models(pod.ip) if merged else self._adapters(pod.ip))
            except EngineUnavailable as error:
                memory.is_current = False
                logger.warning("an engine pod did not list its models", pod=pod.name, error=str(error))
            else:
                memory.is_current = True
                if memory.changes == changes:
                    self._note(memory, listed)
        return EnginePod(pod, memory.listed, frozenset(memory.probed), dict(memory.refused), dict(memory.failing))

    def _note(self, memory: PodMemory, listed: Mapping[str, str]) -> None:
        memory.listed, memory.listed_at = listed, self._clock()

    def _is_fresh(self, memory: PodMemory) -> bool:
        return memory.listed_at is not None and self._clock() - memory.listed_at < LISTING_SECONDS

    async def _adapters(self, ip: str) -> dict[str, str]:
        """Directories of the loaded adapters by name: the entries of `/v1/models` that have a parent."""
        return {entry["id"]: entry.get("root") or "" for entry in await self._list(ip) if entry.get("parent")}

    async def _models(self, ip: str) -> dict[str, str]:
        """The same of an engine without adapters: its own model."""
        return {entry["id"]: entry.get("root") or "" for entry in await self._list(ip)}

    async def _list(self, ip: str) -> list[dict[str, Any]]:
        timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_SECONDS)
        try:
            async with self._session.get(self._url(ip, "/v1/models"), headers=self._headers, timeout=timeout) as answer:
                if answer.status != 200:
                    raise EngineUnavailable(f"/v1/models answered {answer.status}")
                body = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(f"/v1/models: {cause(error)}") from error
        listed: list[dict[str, Any]] = body["data"]
        return listed

    async def _load(self, ip: str, adapter: Adapter) -> Refusal | None:
        body = {"lora_name": adapter.name, "lora_path": adapter.path}
        headers = {ADAPTER_DIGEST_HEADER: adapter.digest}
        status, text = await self._post(ip, "/v1/load_lora_adapter", body, LOAD_TIMEOUT_SECONDS, headers)
        if status < 400 or "already been loaded" in text or "already loaded" in text:
            return None
        if status >= 500 or status in RETRYABLE_STATUSES:
            raise EngineUnavailable(f"loading {adapter.name} answered {status}: {text[:300]}")
        return _refusal(text)

    async def _probe(self, ip: str, name: str) -> None:
        body = {"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        status, text = await self._post(ip, "/v1/completions", body, PROBE_TIMEOUT_SECONDS)
        if status != 200:
            raise EngineUnavailable(f"a probe of {name} answered {status}: {text[:300]}")

    async def _post(
        self,
        ip: str,
        path: str,
        body: Mapping[str, object],
        timeout_seconds: float,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=LIST_TIMEOUT_SECONDS)
        try:
            async with self._session.post(
                self._url(ip, path), json=body, headers=self._headers | (headers or {}), timeout=timeout
            ) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(f"{path}: {cause(error)}") from error

    def _url(self, ip: str, path: str) -> str:
        return self._url_template.format(ip=ip) + path


@contextmanager
def _changing(memory: PodMemory) -> Iterator[None]:
    """What was listed while something was loaded or taken out may be older than what that has told."""
    memory.changes += 1
    try:
        yield
    finally:
        memory.changes += 1


def _refusal(text: str) -> Refusal:
    """The guard says `{"error": {"type", "message"}}`; vLLM's own refusals have the same shape."""
    try:
        error = json.loads(text)["error"]
        reason, message = str(error["type"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        reason, message = "AdapterRejected", text[:500]
    return Refusal(reason if CONDITION_REASON.fullmatch(reason) else "AdapterRejected", message)
