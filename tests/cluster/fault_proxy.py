"""An HTTP proxy between the operator and the API server that cuts the operator off at a chosen write."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from tests.cluster.control_plane import ControlPlane

PASSED_ON = ("Authorization", "Content-Type", "Accept")
LARGEST_REQUEST_BYTES = 4 * 1024 * 1024


class FaultProxy:
    """The k-th write reaches the API server and is committed there; its answer never reaches the operator."""

    def __init__(self, plane: ControlPlane, cut_after_write: int | None = None) -> None:
        self.writes: list[str] = []
        self.cut: str | None = None
        self.on_cut: Callable[[], Awaitable[None]] | None = None
        self._plane = plane
        self._cut_after_write = cut_after_write
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
        self._runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
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
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response

    async def _after_write(self, request: web.Request, status: int) -> None:
        if status >= 400:
            return
        self.writes.append(_what(request))
        if len(self.writes) == self._cut_after_write and self.on_cut:
            self.cut = self.writes[-1]
            await self.on_cut()
            await self._ended.wait()


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Content-Type": answer.headers.get("Content-Type", "application/json")}


def _what(request: web.Request) -> str:
    """Method and kind, such as `PATCH finetunejobs/status`."""
    parts = request.path.split("/namespaces/", 1)[1].split("/")
    return f"{request.method} {'/'.join(parts[1:2] + parts[3:])}"
