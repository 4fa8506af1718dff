"""Connections to all engines, kept for a moment after each answer."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from finetune_operator.gateway.engine_connection import EngineAnswer, EngineConnection
from finetune_operator.gateway.header_lines import header_lines

IDLE_SECONDS = 3.0
"""Shorter than the 5 s after which vLLM's server closes an idle connection."""
ADDRESSES_SECONDS = 10.0
"""How long a looked-up name is believed: many clients that come at once shall not wait for as many lookups."""
SECOND_LOOK_SECONDS = 0.1


class EngineUnreachable(Exception):
    """No connection came about, so that nothing of the request has been sent."""


class Place(NamedTuple):
    """Where an engine listens, and the first line and `Host` of every request for one path there."""

    host: str
    port: int
    tls: bool
    head: bytes


class EnginePool:
    """Asks engines by HTTP/1.1. `silence_seconds` is for how long one may send nothing, before and within an answer."""

    def __init__(self, connect_timeout_seconds: float, silence_seconds: float) -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._silence_seconds = silence_seconds
        self._idle: dict[tuple[str, int], list[tuple[float, EngineConnection]]] = {}
        self._lookups: dict[tuple[str, int], tuple[float, asyncio.Task[tuple[str, ...]]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        fresh: bool = False,
        connected: Callable[[], None] = lambda: None,
    ) -> EngineAnswer:
        """The answer as soon as its head has come; whoever gets it ends it with `release`.

        A `fresh` connection is made for it, which leads to any of the engine's pods, rather than one that was kept.
        `connected` is called once there is one.
        Raises `EngineUnreachable`, `EngineLost`, `EngineSilent`; being cancelled closes the connection.
        """
        place = place_of(url)
        head = f"{header_lines(headers)}Accept-Encoding: identity\r\nContent-Length: {len(body)}\r\n\r\n"
        request = b"".join((place.head, head.encode("utf-8", "surrogateescape"), body))
        connection = (None if fresh else self._kept(place)) or await self._connected(place)
        connected()
        return await connection.ask(request)

    def close(self) -> None:
        """Of what is idle; answers under way keep their connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for kept in self._idle.values():
            for _, connection in kept:
                connection.close()
        self._idle.clear()
        for _, lookup in self._lookups.values():
            lookup.cancel()

    def _kept(self, place: Place) -> EngineConnection | None:
        """The one that was used last, so that those beyond the need grow old."""
        kept, now = self._idle.get((place.host, place.port)), asyncio.get_running_loop().time()
        while kept:
            since, connection = kept.pop()
            if connection.is_usable and now - since < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connected(self, place: Place) -> EngineConnection:
        loop, key = asyncio.get_running_loop(), (place.host, place.port)

        def released(connection: EngineConnection) -> None:
            self._idle.setdefault(key, []).append((loop.time(), connection))
            if self._sweeping is None:
                self._sweeping = loop.call_later(IDLE_SECONDS, self._sweep)

        connecting = asyncio.create_task(self._connect(place, released))
        try:
            done, _ = await asyncio.wait({connecting}, timeout=self._connect_timeout_seconds)
            if not done:
                # Where the loop itself was late, it has yet to look at what has come meanwhile.
                done, _ = await asyncio.wait({connecting}, timeout=SECOND_LOOK_SECONDS)
            if not done:
                self._forget(key)
                raise EngineUnreachable(f"{place.host} did not take a connection in time")
        except BaseException:
            connecting.add_done_callback(_close_unused)
            connecting.cancel()
            raise
        try:
            return connecting.result()
        except OSError as error:
            self._forget(key)
            raise EngineUnreachable(str(error) or type(error).__name__) from error

    async def _connect(self, place: Place, released: Callable[[EngineConnection], None]) -> EngineConnection:
        """To the first of its addresses that takes a connection; raises `OSError`."""
        loop, failure = asyncio.get_running_loop(), OSError("its name has no address")
        for address in await self._addresses((place.host, place.port)):
            try:
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(self._silence_seconds, released),
                    address,
                    place.port,
                    ssl=_trust() if place.tls else None,
                    server_hostname=place.host if place.tls else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure

    def _forget(self, key: tuple[str, int]) -> None:
        """Addresses that refuse; a lookup that is under way may yet find others."""
        if key in self._lookups and self._lookups[key][1].done():
            del self._lookups[key]

    async def _addresses(self, key: tuple[str, int]) -> tuple[str, ...]:
        """Raises `OSError` for an unknown name."""
        loop = asyncio.get_running_loop()
        expires, lookup = self._lookups.get(key, (0.0, None))
        if lookup is None or expires <= loop.time():
            lookup = loop.create_task(_lookup(*key))
            self._lookups[key] = (loop.time() + ADDRESSES_SECONDS, lookup)
        # Others may wait for it, too.
        return await asyncio.shield(lookup)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        loop = asyncio.get_running_loop()
        now, self._sweeping = loop.time(), None
        for key, kept in list(self._idle.items()):
            for _, connection in (entry for entry in kept if now - entry[0] >= IDLE_SECONDS):
                connection.close()
            if fresh := [entry for entry in kept if now - entry[0] < IDLE_SECONDS]:
                self._idle[key] = fresh
            else:
                del self._idle[key]
        if self._idle:
            self._sweeping = loop.call_later(IDLE_SECONDS, self._sweep)


@lru_cache(maxsize=1024)
def place_of(url: str) -> Place:
    """Raises `ValueError` for what is no URL of a server."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError(f"{url!r} is not a URL that begins with http:// or https://")
    tls = parts.scheme == "https"
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    return Place(parts.hostname, parts.port or (443 if tls else 80), tls, head.encode())


def _close_unused(connecting: "asyncio.Task[EngineConnection]") -> None:
    """A connection that came about when nobody waited for it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


async def _lookup(host: str, port: int) -> tuple[str, ...]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
