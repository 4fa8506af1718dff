"""One HTTP/1.1 connection to an engine: a request goes out in one piece, and its answer is handed on as it comes.

The gateway's whole cost lies here and in the server in front, hence no general client: nothing is looked up, decoded or
copied that a passed-on answer does not need. llhttp reads the wire.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

HEAD_MAX_BYTES = 64 * 1024
BUFFERED_MAX_BYTES = 128 * 1024
"""Of an answer that nobody has taken yet; beyond it the engine has to wait."""
GONE_SECONDS = 20
"""After which a node that answers no packet is gone; a busy engine's kernel answers at once. What an engine does not
read counts as well, hence no less."""
PROBE_SECONDS = 5


class EngineLost(Exception):
    """The connection broke, or what came over it is no HTTP; the text says which."""


class EngineSilent(Exception):
    """Nothing has come for as long as an engine may be silent."""


class EngineAnswer:
    """An answer whose head has come; header names are lower-case. Ends with `release`, or with `close` before that."""

    def __init__(self, connection: "EngineConnection") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection = connection
        self._body: bytes | None = None

    @property
    def content_type(self) -> str:
        """Without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def __aiter__(self) -> "EngineAnswer":
        return self

    async def __anext__(self) -> bytes:
        """The body as it comes, each time all that is there. Raises `EngineLost`, `EngineSilent`."""
        if chunk := await self._connection.chunk():
            return chunk
        raise StopAsyncIteration

    async def pour(self, sink: Callable[[bytes], bool], drained: Callable[[], Awaitable[None]]) -> None:
        """The body into `sink`, in the very moment that it comes; where that tells that it is full, the engine has to
        wait until it has `drained`. Raises `EngineLost`, `EngineSilent`."""
        await self._connection.pour(sink, drained)

    async def read(self) -> bytes:
        """The whole body, however often. Raises `EngineLost`, `EngineSilent`."""
        if self._body is None:
            self._body = await self._connection.rest()
        return self._body

    def release(self) -> None:
        """Keep the connection for another request, or close it where there is more to come."""
        self._connection.release()

    def close(self) -> None:
        self._connection.close()


class EngineConnection(asyncio.Protocol):
    """A connection that carries one request at a time; `released` takes it back once an answer has been read whole."""

    def __init__(self, silence_seconds: float, released: Callable[["EngineConnection"], None]) -> None:
        self._silence_seconds = silence_seconds
        self._released = released
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: EngineAnswer | None = None
        """Of the request that is under way; none of an idle connection."""
        self._has_head = self._is_whole = self._keeps_alive = False
        self._head_bytes = 0
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._is_paused = False
        self._sink: Callable[[bytes], bool] | None = None
        """Takes the body instead of the buffer."""
        self._is_sink_full = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: EngineLost | None = None
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent."""
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> EngineAnswer:
        """Send it and wait for the head of the answer. Raises `EngineLost`, `EngineSilent`."""
        if self._transport is None:
            raise EngineLost("not connected")
        answer = self._answer = EngineAnswer(self)
        self._has_head = self._is_whole = self._keeps_alive = False
        self._head_bytes = 0
        self._heard_at = self._loop.time()
        self._transport.write(request)
        if self._timer is None:
            self._timer = self._loop.call_at(self._heard_at + self._silence_seconds, self._look_for_silence)
        while not self._has_head:
            await self._news()
        return answer

    async def chunk(self) -> bytes:
        """What has come of the body since the last time, empty at its end. Raises `EngineLost`, `EngineSilent`."""
        while not self._buffer:
            if self._is_whole:
                return b""
            await self._news()
        found = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        self._resume()
        return found

    async def rest(self) -> bytes:
        """All that is left of the body. Raises `EngineLost`, `EngineSilent`."""
        chunks = []
        while self._buffer or not self._is_whole:
            chunks.append(await self.chunk())
        return b"".join(chunks)

    async def pour(self, sink: Callable[[bytes], bool], drained: Callable[[], Awaitable[None]]) -> None:
        """Whatever comes of the body goes into `sink`. Raises `EngineLost`, `EngineSilent`."""
        if self._buffer:
            self._is_sink_full = sink(await self.chunk())
        self._sink = sink
        try:
            while self._is_sink_full or not self._is_whole:
                if self._is_sink_full:
                    await drained()
                    self._is_sink_full = False
                    self._resume()
                else:
                    await self._news()
        except BaseException:
            # It may have been told to pause, which whoever used it next would know nothing of.
            self.close()
            raise
        finally:
            self._sink = None

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None and self.is_usable:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    def release(self) -> None:
        """Harmless on a connection that is idle or closed."""
        if self._answer is None:
            return
        if self._is_whole and self._keeps_alive and not self._buffer and self.is_usable:
            self._answer = None
            self._released(self)
        else:
            self.close()

    def close(self) -> None:
        """At once, also towards an engine that does not read."""
        self._answer = None
        self._buffer.clear()
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        """Until something has come. Raises `EngineLost`, `EngineSilent`; being cancelled closes the connection, too."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    def _wake(self, error: Exception | None = None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    def _look_for_silence(self) -> None:
        """One timer, however many requests and chunks come; while nobody waits, the client is the slow one."""
        if self._answer is None:
            self._timer = None
            return
        now = self._loop.time()
        if self._waiter is None:
            self._heard_at = now
        due = self._heard_at + self._silence_seconds
        if due <= now:
            self._timer = None
            self._wake(EngineSilent())
        else:
            self._timer = self._loop.call_at(due, self._look_for_silence)

    def _fail(self, error: EngineLost) -> None:
        self._error = self._error or error
        self._wake(error)

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Else a pod whose node has lost its power would be waited for as long as an engine may be silent.
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_SECONDS * 1000)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()
            return
        self._heard_at = self._loop.time()
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(EngineLost(f"it does not speak HTTP/1.1: {error}"))
            self.close()
            return
        if not self._has_head and self._head_bytes > HEAD_MAX_BYTES:
            self._fail(EngineLost(f"the head of its answer has more than {HEAD_MAX_BYTES} bytes"))
            self.close()
            return
        if (
            (self._is_sink_full or self._buffered_bytes > BUFFERED_MAX_BYTES)
            and not self._is_paused
            and self._transport is not None
        ):
            self._is_paused = True
            self._transport.pause_reading()
        if self._sink is None or self._is_sink_full or self._is_whole:
            self._wake()

    def eof_received(self) -> bool:
        """An answer that tells no length has its end here."""
        headers = self._answer.headers if self._answer and self._has_head else {}
        if headers and not self._is_whole and "content-length" not in headers and "transfer-encoding" not in headers:
            self._is_whole = True
            self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail(EngineLost(str(error) if error else "it closed the connection"))

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None:
            self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._answer is None:
            return
        self._answer.status = self._parser.get_status_code()
        if self._answer.status >= 200:
            self._has_head = True

    def on_body(self, body: bytes) -> None:
        if self._sink is not None:
            self._is_sink_full = self._sink(body)
            return
        self._buffer.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_whole = True
            self._keeps_alive = self._parser.should_keep_alive()
        elif self._answer is not None:
            # An interim answer (1xx), which the real one follows.
            self._answer.headers.clear()
