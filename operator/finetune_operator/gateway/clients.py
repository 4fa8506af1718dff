"""Who asks for a completion and gets the answer: one face for both servers in front.

Most requests are plain and come by `client_connection`; what HTTP has besides is aiohttp's, whose requests get this
face by `AiohttpClient`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web

from finetune_operator.gateway.engine_connection import EngineAnswer


class Client(Protocol):
    """One request. Sending raises `ConnectionError` once the client has gone."""

    path: str
    remote: str | None
    """The address."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Found by their names in lower case."""

    async def read(self) -> bytes:
        """The body; raises `web.HTTPRequestEntityTooLarge`."""

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """All of it."""

    async def begin(self, headers: Mapping[str, str]) -> None:
        """An answer of status 200 that comes by `write` and ends with `end`."""

    async def write(self, chunk: bytes) -> None:
        """As a chunk of its own; waits while the client is slow."""

    async def relay(self, answer: EngineAnswer, note: Callable[[bytes], None]) -> None:
        """Write the rest of an engine's answer, chunk by chunk; each is noted. Raises what reading it raises."""

    async def end(self, chunk: bytes = b"") -> None: ...

    def abort(self) -> None:
        """Break off what has begun, so that the client knows that it is not whole."""


class AiohttpClient:
    """A request that aiohttp's server has read; `response` is what its handler has to return."""

    def __init__(self, request: web.Request, is_draining: Callable[[], bool]) -> None:
        self.path = request.path
        self.remote = request.remote
        self.response: web.StreamResponse = web.StreamResponse()
        self._request = request
        self._is_draining = is_draining

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    async def read(self) -> bytes:
        return await self._request.read()

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await self._prepare(web.Response(status=status, headers=headers, body=body))
        await self.end()

    async def begin(self, headers: Mapping[str, str]) -> None:
        await self._prepare(web.StreamResponse(headers=headers))

    async def write(self, chunk: bytes) -> None:
        await self.response.write(chunk)

    async def relay(self, answer: EngineAnswer, note: Callable[[bytes], None]) -> None:
        async for chunk in answer:
            await self.write(chunk)
            note(chunk)

    async def end(self, chunk: bytes = b"") -> None:
        await self.response.write_eof(chunk)

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _prepare(self, response: web.StreamResponse) -> None:
        self.response = response
        if self._is_draining():
            response.force_close()
        await response.prepare(self._request)
