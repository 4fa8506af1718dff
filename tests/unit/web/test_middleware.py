"""What wraps every request, on an application of the test's own."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from finetune_operator.web.middleware import HeadRequests

DEADLINE_SECONDS = 10


def application(ended: asyncio.Event) -> HeadRequests:
    async def words() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"and on "
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    async def stream(request: Request) -> Response:
        return StreamingResponse(words(), media_type="text/event-stream")

    async def text(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} as it is")

    return HeadRequests(Starlette(routes=[Route("/stream", stream, methods=["GET"]), Route("/text", text)]))


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_head_of_a_stream_ends_it(spec_version: str) -> None:
    ended, sent = asyncio.Event(), []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]
    scope = {
        "type": "http",
        "method": "HEAD",
        "path": "/stream",
        "headers": [],
        "query_string": b"",
        "asgi": {"version": "3.0", "spec_version": spec_version},
    }

    async def receive() -> dict[str, object]:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    async def send(message: object) -> None:
        sent.append(message)

    async with asyncio.timeout(DEADLINE_SECONDS):
        await application(ended)(scope, receive, send)  # type: ignore[arg-type]
        await ended.wait()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def test_head_has_the_headers_of_get() -> None:
    transport = httpx2.ASGITransport(application(asyncio.Event()))  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        got, head = await client.get("/text"), await client.head("/text")
    assert (got.text, head.content) == ("GET as it is", b"")
    assert head.headers == got.headers
