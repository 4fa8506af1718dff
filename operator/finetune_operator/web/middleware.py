"""What wraps every request: bounds on its head and its body, safe headers, and one log line."""

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune_operator.logs import get_logger
from finetune_operator.web.openai_api.errors import COMPLETION_PATHS
from finetune_operator.web.problems import problem_response

HEAD_MAX_BYTES = 65_536
QUIET_PATHS = frozenset({"/healthz", "/readyz"})
STREAMED = frozenset({("POST", path) for path in ("/v1/files", *COMPLETION_PATHS)})
"""Read as they come, with bounds of their own."""
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

logger = get_logger(__name__)


class BodyLimit:
    """Read a body up to a size and within a time before anything parses it."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) in STREAMED:
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        body = bytearray()
        more = True
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while more and len(body) <= self._max_bytes and not (declared.isdigit() and self._too_much(declared)):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            detail = f"the body did not arrive within {self._timeout_seconds:g} seconds"
            await problem_response(scope["path"], 408, "slow-body", detail)(scope, receive, send)
            return
        if more or len(body) > self._max_bytes:
            detail = f"the body is larger than {self._max_bytes} bytes; send less at a time"
            await problem_response(scope["path"], 413, "large-body", detail)(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)

    def _too_much(self, declared: str) -> bool:
        return len(declared) > 18 or int(declared) > self._max_bytes


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then whatever the connection says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


class HeadLimit:
    """Refuse a request whose target and headers are together longer than any client's."""

    def __init__(self, app: ASGIApp, max_bytes: int = HEAD_MAX_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
            if target + sum(len(name) + len(value) for name, value in scope["headers"]) > self._max_bytes:
                detail = f"path, query and headers are together longer than {self._max_bytes} bytes; send less"
                await problem_response(scope["path"], 431, "large-head", detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class HeadRequests:
    """HEAD is GET without the body (RFC 9110, section 9.3.2), of whatever GET answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        is_begun = asyncio.Event()

        async def begin(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                is_begun.set()

        async def listen() -> Message:
            """Who streams is told that nobody reads on."""
            received, begun = asyncio.ensure_future(receive()), asyncio.ensure_future(is_begun.wait())
            try:
                await asyncio.wait((received, begun), return_when=asyncio.FIRST_COMPLETED)
                return received.result() if received.done() else {"type": "http.disconnect"}
            finally:
                received.cancel()
                begun.cancel()

        # Of later versions of ASGI, streams listen no more, but wait for a write that fails.
        asgi = {**scope["asgi"], "spec_version": "2.3"}
        await self._app({**scope, "method": "GET", "asgi": asgi}, listen, begin)


class RequestLog:
    """One line a request, without query or body, since those may be private; probes stay silent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if scope["path"] not in QUIET_PATHS:
                logger.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.monotonic() - begin) * 1000),
                )
