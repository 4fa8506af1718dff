"""A port of a pod over a WebSocket: what is bytes, what is an end, and what is neither."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Unavailable
from finetune_operator.kube.port_forward import DATA, ERRORS, PROTOCOL, PodConnection

PORT = 8080
Played = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]


async def closes(websocket: web.WebSocketResponse, _: web.Request) -> None:
    await websocket.close()


async def vanishes(_: web.WebSocketResponse, request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


async def says_nothing(websocket: web.WebSocketResponse, _: web.Request) -> None:
    await websocket.send_bytes(b"")
    await websocket.close()


async def fails(websocket: web.WebSocketResponse, _: web.Request) -> None:
    await websocket.send_bytes(bytes((ERRORS,)) + b"connection refused")


async def chats(websocket: web.WebSocketResponse, _: web.Request) -> None:
    await websocket.send_str("hello")


@asynccontextmanager
async def connection(end: Played) -> AsyncIterator[PodConnection]:
    """To a pod that says some bytes, and then ends in this way."""

    async def forward(request: web.Request) -> web.WebSocketResponse:
        assert request.query == {"ports": str(PORT)}
        websocket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await websocket.prepare(request)
        for channel in (DATA, ERRORS):
            await websocket.send_bytes(bytes((channel,)) + PORT.to_bytes(2, "little"))
        await websocket.send_bytes(bytes((DATA,)) + b"some bytes")
        await end(websocket, request)
        return websocket

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team-a/pods/api/portforward", forward)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        client = KubeClient(session, kopf.ConnectionInfo(server=str(server.make_url("")).rstrip("/")))
        async with client.port_forward("team-a", "api", PORT) as pod:
            yield pod


@pytest.mark.parametrize("end", [closes, says_nothing])
async def test_bytes_until_the_pod_closes(end: Played) -> None:
    async with connection(end) as pod:
        assert [content async for content in pod.received()] == [b"some bytes"]


@pytest.mark.parametrize(
    ("end", "words"),
    [(vanishes, "without a word"), (fails, "connection refused"), (chats, "it sends text")],
)
async def test_what_is_no_end_is_told(end: Played, words: str) -> None:
    async with connection(end) as pod:
        received = pod.received()
        assert await anext(received) == b"some bytes"
        with pytest.raises(Unavailable, match=words):
            await anext(received)
