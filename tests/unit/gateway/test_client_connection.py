"""Connections as they are: in pieces, one request behind the other, given to aiohttp, and broken."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from finetune_operator.gateway.app import Gateway
from finetune_operator.gateway.client_connection import ClientServer
from finetune_operator.gateway.clients import Client
from finetune_operator.gateway.exchange import Exchange
from tests.unit.gateway.clients import chat
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import HOST, Engine
from tests.waiting import eventually

DEADLINE_SECONDS = 10.0
MIB = 1024 * 1024
POURED_MIB, IN_SOCKETS_MAX_MIB = 64, 24
"""The kernel keeps a few MiB of a connection on either side."""
PATH = "/v1/chat/completions"


def request(body: bytes, *headers: str, method: str = "POST", path: str = PATH, version: str = "1.1") -> bytes:
    told = "".join(f"{header}\r\n" for header in headers or (f"Content-Length: {len(body)}",))
    return f"{method} {path} HTTP/{version}\r\nHost: {HOST}\r\n{told}\r\n".encode() + body


@dataclass
class Answer:
    """As it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def model(self) -> str:
        return str(json.loads(self.body)["model"])


class Wire:
    """A connection without a client's cleverness."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> Answer:
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = b"".join([chunk async for chunk in self.chunks()])
            return Answer(int(first.split()[1]), headers, body)

    async def chunks(self) -> AsyncIterator[bytes]:
        while length := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(length)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.reader.read() == b""


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(HOST, world.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def wire(gateway: World) -> AsyncIterator[Wire]:
    async with connected(gateway) as found:
        yield found


async def test_an_answer_in_full(gateway: World, wire: Wire) -> None:
    wire.writer.write(request(chat("plato")))
    answer = await wire.answer()
    assert (answer.status, answer.body) == (200, Engine.whole_answer("plato-v1").encode())
    assert answer.headers.keys() == {"content-type", "content-length", "date", "x-request-id", "x-finetune-version"}


async def test_each_chunk_of_the_engine_is_one_of_ours(gateway: World, wire: Wire) -> None:
    gateway.engine.proceed.clear()
    wire.writer.write(request(chat("plato", stream=True)))
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked\r\n" in head
    gateway.engine.proceed.set()
    body = b"".join([chunk async for chunk in wire.chunks()])
    events = [Engine.event("plato-v1", word) for word in ("I ", "am ", "plato-v1")]
    assert body.startswith(b"".join(events))
    assert body.endswith(b"data: [DONE]\n\n")


def pieces(data: bytes, length: int) -> Iterator[bytes]:
    return (data[start : start + length] for start in range(0, len(data), length))


@pytest.mark.parametrize(("length", "padding_length"), [(1, 0), (50, 30_000), (10_000, 30_000), (100_000, 400_000)])
async def test_a_request_in_pieces(wire: Wire, length: int, padding_length: int) -> None:
    """Also one that is too long to be read before anybody has looked at its token."""
    padding = "x" * padding_length
    for piece in pieces(request(chat("plato", padding=padding)), length):
        wire.writer.write(piece)
        await wire.writer.drain()
        # So that each is read by itself.
        await asyncio.sleep(0)
    assert (await wire.answer()).model == "plato-v1"


async def test_one_request_behind_the_other(wire: Wire) -> None:
    names = ["plato-v1", "tiny", "plato-v2"] * 5
    wire.writer.write(b"".join(request(chat(name)) for name in names))
    assert [(await wire.answer()).model for _ in names] == names


async def test_what_comes_too_early_is_held_back(gateway: World, wire: Wire) -> None:
    gateway.engine.proceed.clear()
    names = ["plato-v1", "tiny"] * 40
    wire.writer.write(b"".join(request(chat(name, padding="x" * 10_000)) for name in names))
    await gateway.engine.busy.wait()
    gateway.engine.proceed.set()
    assert [(await wire.answer()).model for _ in names] == names


async def test_an_error_keeps_the_connection(wire: Wire) -> None:
    half_a_character = b'{"model": "\\ud800", "messages": []}'
    for body, status in ((b"hello", 400), (chat("nobody"), 404), (half_a_character, 404), (chat("plato"), 200)):
        wire.writer.write(request(body))
        assert (await wire.answer()).status == status


AS_AIOHTTP_READS: dict[str, bytes] = {
    "in chunks": request(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat("plato")), chat("plato")), "Transfer-Encoding: chunked"),
    "compressed": request(
        gzip.compress(chat("plato")), f"Content-Length: {len(gzip.compress(chat('plato')))}", "Content-Encoding: gzip"
    ),
    "with a query": request(chat("plato"), path=f"{PATH}?api-version=1"),
}


@pytest.mark.parametrize("case", AS_AIOHTTP_READS)
@pytest.mark.parametrize("behind_a_plain_one", [False, True])
async def test_requests_that_are_not_plain(wire: Wire, case: str, behind_a_plain_one: bool) -> None:
    if behind_a_plain_one:
        wire.writer.write(request(chat("tiny")))
        assert (await wire.answer()).model == "tiny"
    wire.writer.write(AS_AIOHTTP_READS[case])
    answer = await wire.answer()
    assert (answer.status, answer.model) == (200, "plato-v1")
    assert {"x-request-id", "x-finetune-version"} <= answer.headers.keys()
    wire.writer.write(request(chat("plato-v2")))
    assert (await wire.answer()).model == "plato-v2"


async def test_a_stream_by_aiohttp(wire: Wire) -> None:
    wire.writer.write(request(chat("plato", stream=True), path=f"{PATH}?a=b"))
    assert (await wire.answer()).body.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_asks_first_whether_it_may(wire: Wire) -> None:
    body = chat("plato")
    wire.writer.write(request(b"", f"Content-Length: {len(body)}", "Expect: 100-continue"))
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.writer.write(body)
    assert (await wire.answer()).model == "plato-v1"


async def test_the_last_request_of_a_client(wire: Wire) -> None:
    body = chat("plato")
    wire.writer.write(request(body, f"Content-Length: {len(body)}", "Connection: close"))
    assert (await wire.answer()).model == "plato-v1"
    assert await wire.is_closed()


@pytest.mark.parametrize(
    "garbage",
    [b"\r\n\r\nhello\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nno header\r\n\r\n", b"\x16\x03\x01\x00" * 9],
)
async def test_what_is_no_http(wire: Wire, garbage: bytes) -> None:
    wire.writer.write(garbage)
    wire.writer.write_eof()
    assert b" 200 " not in await asyncio.wait_for(wire.reader.read(), DEADLINE_SECONDS)


async def test_while_it_drains_the_answer_tells_that_it_is_the_last(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(), connected(world) as wire:
        wire.writer.write(request(chat("plato")))
        await world.engine.busy.wait()
        world.stop.set()
        await eventually(lambda: takes_no_more(world))
        world.engine.proceed.set()
        answer = await wire.answer()
        assert (answer.model, answer.headers["connection"]) == ("plato-v1", "close")
        assert await wire.is_closed()


async def takes_no_more(world: World) -> bool:
    return not await world.ready()


async def test_idle_connections_end_with_the_gateway(world: World) -> None:
    async with world.gateway(), connected(world) as used, connected(world) as unused:
        used.writer.write(request(chat("plato")))
        await used.answer()
        world.stop.set()
        assert await used.is_closed()
        assert await unused.is_closed()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_defect_is_told_and_ends_the_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    async def fail(_gateway: Gateway, client: Client, _token: str | None, _exchange: Exchange) -> None:
        if begun:
            await client.begin({})
            await client.write(b"x")
        raise LookupError("a defect")

    monkeypatch.setattr(Gateway, "_answer", fail)
    wire.writer.write(request(chat("plato")))
    if begun:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()
    else:
        answer = await wire.answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (500, "internal_error")
        assert "x-request-id" in answer.headers
        assert await wire.is_closed()


@asynccontextmanager
async def served(handle: Callable[[Client], Awaitable[None]]) -> AsyncIterator[tuple[ClientServer, Wire]]:
    """A server without a gateway, and a connection to it."""
    server = ClientServer(handle, asyncio.Protocol, [PATH], MIB, lambda: False)
    listening = await asyncio.get_running_loop().create_server(server, HOST, 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        yield server, Wire(reader, writer)
    finally:
        writer.close()
        listening.close()


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    written = 0

    async def pour(client: Client) -> None:
        nonlocal written
        await client.begin({})
        for _ in range(POURED_MIB):
            await client.write(b"x" * MIB)
            written += 1
        await client.end()

    async with served(pour) as (_, wire):
        wire.writer.write(request(b""))
        await wire.reader.readuntil(b"\r\n\r\n")
        read = 0
        async for chunk in wire.chunks():
            read += len(chunk) // MIB
            assert written - read <= IN_SOCKETS_MAX_MIB
    assert read == written == POURED_MIB


async def test_whole_answers_wait_for_a_client_that_does_not_read() -> None:
    answered = 0

    async def answer(client: Client) -> None:
        nonlocal answered
        await client.answer(200, {}, b"x" * MIB)
        answered += 1

    async with served(answer) as (_, wire):
        wire.writer.write(request(b"") * POURED_MIB)
        for read in range(POURED_MIB):
            await wire.answer()
            assert answered - read <= IN_SOCKETS_MAX_MIB
    assert answered == POURED_MIB


async def test_requests_wait_in_the_clients_kernel_while_others_are_answered() -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def answer(client: Client) -> None:
        begun.set()
        await goes_on.wait()
        await client.answer(200, {}, b"")

    one = request(b"")
    async with served(answer) as (_, wire):
        wire.writer.write(one * (POURED_MIB * MIB // len(one)))
        await begun.wait()
        left = wire.writer.transport.get_write_buffer_size
        await eventually(lambda: left() < POURED_MIB * MIB)
        goes_on.set()
        for number in range(2000):
            await wire.answer()
            # Of each answer's place in the kernel's buffers, not of all that has been sent.
            assert left() > (POURED_MIB - IN_SOCKETS_MAX_MIB) * MIB - number * len(one)


async def test_the_end_waits_until_an_answer_has_gone_out() -> None:
    async def answer(client: Client) -> None:
        await client.answer(200, {}, b"x" * POURED_MIB * MIB)

    async with served(answer) as (server, wire):
        wire.writer.write(request(b""))
        await wire.reader.readexactly(MIB)
        closing = asyncio.create_task(server.close(timeout_seconds=DEADLINE_SECONDS))
        rest = await asyncio.wait_for(wire.reader.read(), DEADLINE_SECONDS)
        await closing
    assert MIB + len(rest) > POURED_MIB * MIB


async def test_who_does_not_end_in_time_is_broken_off() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(_client: Client) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with served(wait) as (server, wire):
        wire.writer.write(request(b""))
        await begun.wait()
        await server.close(timeout_seconds=0.01)
        await asyncio.wait_for(ended.wait(), DEADLINE_SECONDS)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()


async def test_a_header_is_one_line() -> None:
    async def answer(client: Client) -> None:
        await client.answer(200, {"x-a": "b\r\nx-c: d"}, b"")

    async with served(answer) as (_, wire):
        wire.writer.write(request(b""))
        assert (await wire.answer()).status == 500
