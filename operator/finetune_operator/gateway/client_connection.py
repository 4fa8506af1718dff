"""Connections of clients: plain completion requests are read and answered here, the rest is aiohttp's.

A general server's way from the socket to the handler and back costs more than all else that the gateway does for a
request. A connection on which anything else comes goes over to aiohttp with all that has come, and stays there.
"""

import asyncio
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from finetune_operator.gateway import errors
from finetune_operator.gateway.clients import Client
from finetune_operator.gateway.engine_connection import EngineAnswer
from finetune_operator.gateway.exchange import REQUEST_ID_HEADER, new_request_id
from finetune_operator.gateway.header_lines import header_lines
from finetune_operator.gateway.plain_requests import HeadReader, PlainHead
from finetune_operator.logs import get_logger

KEEP_ALIVE_SECONDS = 3630.0
"""As aiohttp's: longer than load balancers keep theirs, so that it is them who close."""
PIPELINED_MAX_BYTES = 64 * 1024
"""Of what comes while a request is being answered; beyond it the client has to wait."""
BODY_MAX_BYTES = 256 * 1024
"""Read before anybody has looked at the token; longer ones are aiohttp's, which lets them wait for that."""
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

logger = get_logger(__name__)


class ClientServer:
    """Makes a connection of each that is accepted. `handle` answers a request; `rest` makes aiohttp's connections."""

    def __init__(
        self,
        handle: Callable[[Client], Awaitable[None]],
        rest: Callable[[], asyncio.Protocol],
        paths: Iterable[str],
        max_body_bytes: int,
        is_draining: Callable[[], bool],
    ) -> None:
        self.handle = handle
        self.rest = rest
        self.heads = HeadReader(paths)
        self.max_body_bytes = max_body_bytes
        self.is_draining = is_draining
        self._connections: set[ClientConnection] = set()
        self._is_empty = asyncio.Event()

    def add(self, connection: "ClientConnection") -> None:
        self._connections.add(connection)

    def discard(self, connection: "ClientConnection") -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def __call__(self) -> "ClientConnection":
        return ClientConnection(self)

    async def close(self, timeout_seconds: float) -> None:
        """Idle connections at once, others once their answer has gone out, and what is left then without it."""
        for connection in tuple(self._connections):
            connection.close_when_idle()
        self._is_empty.clear()
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), timeout_seconds)
        for connection in tuple(self._connections):
            connection.abort()


class ClientConnection(asyncio.Protocol):
    """A connection that answers one request after the other."""

    def __init__(self, server: ClientServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._remote: str | None = None
        self._received = bytearray()
        """Of the next request."""
        self._head: PlainHead | None = None
        """Of a request whose body has not come whole."""
        self._answering: asyncio.Task[None] | None = None
        self._closes = False
        self._is_held_back = False
        self._writable: asyncio.Future[None] | None = None
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def closes(self) -> bool:
        """Whether the answer under way is the last."""
        return self._closes or self._server.is_draining()

    def close_when_idle(self) -> None:
        self._closes = True
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def send(self, data: bytes) -> None:
        """Raises `ConnectionResetError` once the client has gone."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client has closed the connection")
        self._transport.write(data)

    def send_soon(self, data: bytes) -> bool:
        """Whether the client is slow. What one that has gone would get is dropped: its request is being cancelled."""
        if not self._transport.is_closing():
            self._transport.write(data)
        return self._writable is not None

    async def drained(self) -> None:
        """While the client is slow."""
        if self._writable is not None:
            await self._writable

    def _next_request(self) -> None:
        head = self._head = self._head or self._read_head()
        if head is None or len(self._received) < head.body_bytes:
            return
        self._head = None
        body = bytes(self._received[: head.body_bytes])
        del self._received[: head.body_bytes]
        request = PlainRequest(self, head, body, self._remote)
        self._answering = self._loop.create_task(self._answer(request), name="request")

    def _read_head(self) -> PlainHead | None:
        """None while it has not come whole, or where it is for aiohttp."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if self._received and not self._server.heads.may_become_plain(bytes(self._received)):
                self._leave_to_aiohttp()
            return None
        head = self._server.heads.read(bytes(self._received[:end]))
        if head is None or head.body_bytes >= min(BODY_MAX_BYTES, self._server.max_body_bytes):
            self._leave_to_aiohttp()
            return None
        del self._received[: end + 4]
        return head

    def _leave_to_aiohttp(self) -> None:
        self._forget()
        protocol = self._server.rest()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(bytes(self._received))

    async def _answer(self, request: "PlainRequest") -> None:
        try:
            await self._server.handle(request)
            # The next answer waits until the client has taken this one.
            await self.drained()
        except ConnectionError:
            self.abort()
        except Exception as error:  # noqa: BLE001 - told to the client and the log, whatever it is
            # Its type and place alone: the words of some have what users wrote in them.
            place = traceback.format_tb(error.__traceback__)
            logger.error("request failed", path=request.path, error=type(error).__name__, place=place)
            self._closes = True
            with suppress(ConnectionError):
                request.fail()
        finally:
            self._answering = None
        if self.closes or not request.is_answered:
            self._transport.close()
            return
        self._quiet_since = self._loop.time()
        if self._received:
            self._next_request()
        if self._is_held_back and (self._answering is None or len(self._received) <= PIPELINED_MAX_BYTES):
            self._is_held_back = False
            self._transport.resume_reading()

    def _forget(self) -> None:
        self._server.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_for_quiet(self) -> None:
        now = self._loop.time()
        due = (now if self._answering is not None else self._quiet_since) + KEEP_ALIVE_SECONDS
        if due <= now:
            self._transport.close()
        else:
            self._timer = self._loop.call_at(due, self._look_for_quiet)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if peer else None
        # A client that has vanished without a word holds an engine's place otherwise.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._server.add(self)
        self._quiet_since = self._loop.time()
        self._timer = self._loop.call_at(self._quiet_since + KEEP_ALIVE_SECONDS, self._look_for_quiet)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answering is None:
            self._next_request()
        elif len(self._received) > PIPELINED_MAX_BYTES and not self._is_held_back:
            self._is_held_back = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        # Which closes the connection to the engine.
        if self._answering is not None:
            self._answering.cancel()


class PlainRequest:
    """A `Client`."""

    def __init__(self, connection: ClientConnection, head: PlainHead, body: bytes, remote: str | None) -> None:
        self.path = head.path
        self.remote = remote
        self.is_answered = False
        self._headers = head.headers
        self._connection = connection
        self._body = body
        self._told = b""
        """Of the answer's head: what goes with its first chunk."""
        self._has_begun = False

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def read(self) -> bytes:
        return self._body

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        head = self._head(status, headers, f"Content-Length: {len(body)}\r\n")
        self._has_begun = self.is_answered = True
        self._connection.send(head + body)

    async def begin(self, headers: Mapping[str, str]) -> None:
        self._told = self._head(200, headers, "Transfer-Encoding: chunked\r\n")
        self._has_begun = True

    async def write(self, chunk: bytes) -> None:
        if chunk:
            told, self._told = self._told, b""
            self._connection.send(b"%b%x\r\n%b\r\n" % (told, len(chunk), chunk))
            await self._connection.drained()

    async def relay(self, answer: EngineAnswer, note: Callable[[bytes], None]) -> None:
        def pass_on(chunk: bytes) -> bool:
            note(chunk)
            return self._connection.send_soon(b"%x\r\n%b\r\n" % (len(chunk), chunk))

        await answer.pour(pass_on, self._connection.drained)

    async def end(self, chunk: bytes = b"") -> None:
        await self.write(chunk)
        self.is_answered = True
        self._connection.send(self._told + b"0\r\n\r\n")

    def abort(self) -> None:
        self._connection.abort()

    def fail(self) -> None:
        """By a defect of ours."""
        if self._has_begun:
            self.abort()
        else:
            status, headers, body = errors.defect().answer({REQUEST_ID_HEADER: new_request_id()})
            self._connection.send(self._head(status, headers, f"Content-Length: {len(body)}\r\n") + body)

    def _head(self, status: int, headers: Mapping[str, str], framing: str) -> bytes:
        line = STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
        closing = "Connection: close\r\n" if self._connection.closes else ""
        date = _date(int(time.time()))
        return f"{line}{header_lines(headers)}{framing}Date: {date}\r\n{closing}\r\n".encode("utf-8", "surrogateescape")


_last_date = (0, "")


def _date(now: int) -> str:
    """Made once a second."""
    global _last_date
    if _last_date[0] != now:
        _last_date = (now, formatdate(now, usegmt=True))
    return _last_date[1]
