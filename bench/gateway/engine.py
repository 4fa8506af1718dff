"""An engine that costs next to nothing, so that what is measured is the gateway; speaks just enough HTTP/1.1."""

import asyncio
import json
import re
import time

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_WORD = "word "


class EngineProtocol(asyncio.Protocol):
    """One connection; answers at once, or streams `chunks` events with `interval_seconds` between them."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._buffer = b""
        self._transport: asyncio.Transport
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._streaming and not self._streaming.done():
            self._streaming.cancel()
            if self._engine.aborted and not self._engine.aborted.done():
                self._engine.aborted.set_result(time.perf_counter())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[head + 4 : end], self._buffer[end:]
            self._answer(json.loads(body))

    def _answer(self, body: dict[str, object]) -> None:
        model = self._engine.answers_as or str(body["model"])
        if body.get("stream"):
            self._streaming = asyncio.get_running_loop().create_task(self._stream(model))
            return
        text = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": model,
                "choices": [{"index": 0, "message": {"role": "assistant", "content": _WORD * 100}}],
            }
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self._transport.write(head.encode() + text)

    async def _stream(self, model: str) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(head.encode())
        delta = {"index": 0, "delta": {"content": _WORD}}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [delta]}
        event = f"data: {json.dumps(chunk)}\n\n".encode()
        framed = f"{len(event):x}\r\n".encode() + event + b"\r\n"
        for _ in range(self._engine.chunks):
            self._transport.write(framed)
            await asyncio.sleep(self._engine.interval_seconds)
        self._transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


class Engine:
    """Listens on a port of its own; answers as the model it is asked for, or always as one."""

    def __init__(self, chunks: int, interval_seconds: float, answers_as: str | None = None) -> None:
        self.chunks = chunks
        self.interval_seconds = interval_seconds
        self.answers_as = answers_as
        self.aborted: asyncio.Future[float] | None = None
        """Gets the moment when a client leaves in the middle of a stream."""
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(lambda: EngineProtocol(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server
