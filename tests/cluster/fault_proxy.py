"""An HTTP proxy between the operator and the API server that kills the operator at chosen writes."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

import aiohttp
from aiohttp import web

from tests.cluster.control_plane import ControlPlane

PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")
LARGEST_REQUEST_BYTES = 4 * 1024 * 1024


class CrashPoint(NamedTuple):
    """The n-th write of one kind, such as the second `PATCH finetunejobs/status`."""

    write: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.write} #{self.occurrence}"


class FaultProxy:
    """At a crash point the write is committed in the API server, and the operator dies before it hears of it."""

    def __init__(self, plane: ControlPlane, crash_points: Collection[CrashPoint] = ()) -> None:
        self.writes: list[CrashPoint] = []
        self.crashed_at: list[CrashPoint] = []
        self.kill: Callable[[], Awaitable[None]] | None = None
        self._crash_points = crash_points
        self._plane = plane
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._ended = asyncio.Event()

    @property
    def url(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aenter__(self) -> "FaultProxy":
        connector = aiohttp.TCPConnector(ssl=self._plane.server_trust, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        application = web.Application(client_max_size=LARGEST_REQUEST_BYTES)
        application.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = self._plane.server + request.path_qs
        body = await request.read()
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            if request.method != "GET":
                content = await answer.read()
                await self._after_write(request, answer.status)
                return web.Response(body=content, status=answer.status, headers=_headers(answer))
            response = web.StreamResponse(status=answer.status, headers=_headers(answer))
            await response.prepare(request)
            with suppress(ConnectionResetError):  # the operator was killed
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            return response

    async def _after_write(self, request: web.Request, status: int) -> None:
        if status >= 400:
            return
        kind = _kind(request)
        point = CrashPoint(kind, 1 + sum(earlier.write == kind for earlier in self.writes))
        self.writes.append(point)
        if point in self._crash_points and self.kill:
            self.crashed_at.append(point)
            await self.kill()
            await self._ended.wait()


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Content-Type": answer.headers.get("Content-Type", "application/json")}


def _kind(request: web.Request) -> str:
    """Method and kind, such as `PATCH finetunejobs/status`."""
    parts = request.path.split("/namespaces/", 1)[1].split("/")
    return f"{request.method} {'/'.join(parts[1:2] + parts[3:])}"
