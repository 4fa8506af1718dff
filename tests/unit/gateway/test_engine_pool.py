"""What the gateway's own HTTP client makes of engines: real sockets, and servers that say what a case wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_operator.gateway import engine_pool
from finetune_operator.gateway.engine_connection import BUFFERED_MAX_BYTES, HEAD_MAX_BYTES, EngineLost, EngineSilent
from finetune_operator.gateway.engine_pool import EnginePool, EngineUnreachable, Place, place_of
from tests.unit.gateway.servers import free_port
from tests.waiting import eventually

PATIENCE_SECONDS = 10.0
SILENCE_SECONDS = 0.2
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: X-End\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\nX-End: yes\r\n\r\n"
)
MUCH_BYTES = 256 * BUFFERED_MAX_BYTES
Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Reads requests and answers each by `say`; remembers what came, and how many connections are open."""

    say: Say
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/completions"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                await self.say(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def serving(say: Say) -> AsyncIterator[Server]:
    server = Server(say)
    listening = await asyncio.start_server(server.serve, "127.0.0.1")
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def saying(*pieces: bytes, closing: bool = False) -> Say:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            # So that each piece arrives by itself.
            await asyncio.sleep(0.001)
        if closing:
            writer.close()

    return say


@pytest.fixture
async def pool() -> AsyncIterator[EnginePool]:
    made = EnginePool(connect_timeout_seconds=2.0, silence_seconds=PATIENCE_SECONDS)
    yield made
    made.close()


def saying_much(sent: asyncio.Event) -> Say:
    """More than is buffered anywhere on the way; `sent` is set once all of it has been taken."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH_BYTES)
        writer.write(b"a" * MUCH_BYTES)
        await writer.drain()
        sent.set()

    return say


async def asked(pool: EnginePool, url: str, body: bytes = b"{}") -> tuple[int, str, bytes]:
    answer = await pool.post(url, {"Content-Type": "application/json"}, body)
    try:
        return answer.status, answer.content_type, await answer.read()
    finally:
        answer.release()


ANSWERS = {
    "with a length": (saying(WHOLE), (200, "application/json", b"hello"), 1),
    "byte by byte": (saying(*(bytes([byte]) for byte in WHOLE)), (200, "application/json", b"hello"), 1),
    "in chunks, with a trailer": (saying(CHUNKED), (200, "text/event-stream", b"hello"), 1),
    "in chunks, byte by byte": (
        saying(*(bytes([byte]) for byte in CHUNKED)),
        (200, "text/event-stream", b"hello"),
        1,
    ),
    "after an interim answer": (
        saying(b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n" + WHOLE),
        (200, "application/json", b"hello"),
        1,
    ),
    "without a body": (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, "", b""), 1),
    "that closes": (
        saying(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"),
        (200, "", b"hello"),
        2,
    ),
    "by an older server": (saying(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), (200, "", b"hello"), 2),
    "that ends with its connection": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"hel", b"lo", closing=True),
        (200, "text/plain", b"hello"),
        2,
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer(pool: EnginePool, case: str) -> None:
    say, expected, connections = ANSWERS[case]
    async with serving(say) as server:
        assert await asked(pool, server.url) == expected
        assert await asked(pool, server.url) == expected
        assert server.connections == connections


FAILURES = {
    "another protocol": (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP/1.1"),
    "a switch of protocols": (
        saying(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        "does not speak HTTP/1.1",
    ),
    "nothing": (saying(closing=True), "it closed the connection"),
    "half a head": (saying(b"HTTP/1.1 200 OK\r\nContent-", closing=True), "it closed the connection"),
    "half a body": (saying(WHOLE[:-2], closing=True), "it closed the connection"),
    "half a chunk": (saying(CHUNKED[:-30], closing=True), "it closed the connection"),
    "a broken chunk": (saying(CHUNKED.replace(b"3\r\nhel", b"x\r\nhel")), "does not speak HTTP/1.1"),
    "two lengths": (saying(WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n")), "does not speak HTTP/1.1"),
    "an endless head": (
        saying(b"HTTP/1.1 200 OK\r\n", *[b"X-More: " + b"a" * 1000 + b"\r\n"] * (HEAD_MAX_BYTES // 1000 + 2)),
        f"the head of its answer has more than {HEAD_MAX_BYTES} bytes",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_is_told_and_costs_the_connection(pool: EnginePool, case: str) -> None:
    say, words = FAILURES[case]
    async with serving(say) as server:
        with pytest.raises(EngineLost, match=words):
            await asked(pool, server.url)
        await eventually(lambda: server.open == 0, PATIENCE_SECONDS)


async def test_what_comes_before_a_failure_is_handed_on(pool: EnginePool) -> None:
    async with serving(saying(CHUNKED.partition(b"0\r\nX-End")[0], closing=True)) as server:
        answer = await pool.post(server.url, {}, b"")
        found = b""
        while len(found) < len(b"hello"):
            found += await anext(answer)
        with pytest.raises(EngineLost):
            await anext(answer)
        assert found == b"hello"


async def test_the_request_goes_out_as_it_is(pool: EnginePool) -> None:
    async with serving(saying(WHOLE)) as server:
        headers = {"Content-Type": "application/json", "traceparent": "00-ä\udcff"}
        await (await pool.post(server.url, headers, b'{"a": 1}')).read()
        assert server.requests == [
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b"traceparent: 00-\xc3\xa4\xff\r\nAccept-Encoding: identity\r\nContent-Length: 8\r\n\r\n"
            b'{"a": 1}' % server.port
        ]


async def test_a_header_of_two_lines_is_refused(pool: EnginePool) -> None:
    with pytest.raises(ValueError, match="one line"):
        await pool.post("http://127.0.0.1:1/", {"Authorization": "Bearer a\r\nHost: b"}, b"")


class TestSilence:
    @pytest.mark.parametrize(
        "say", [saying(), saying(WHOLE[:20]), saying(WHOLE[:-1])], ids=["at once", "in the head", "in the body"]
    )
    async def test_an_engine_may_not_be_silent(self, say: Say) -> None:
        pool = EnginePool(2.0, SILENCE_SECONDS)
        async with serving(say) as server:
            with pytest.raises(EngineSilent):
                await asked(pool, server.url)
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)

    async def test_an_engine_may_be_slow(self) -> None:
        async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for byte in WHOLE[-10:]:
                await asyncio.sleep(SILENCE_SECONDS / 4)
                writer.write(bytes([byte]))

        async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(WHOLE[:-10])
            await say(reader, writer)

        pool = EnginePool(2.0, SILENCE_SECONDS)
        async with serving(begin) as server:
            assert (await asked(pool, server.url))[2] == b"hello"

    async def test_the_silence_of_each_request_on_one_connection_counts_from_its_beginning(self) -> None:
        pauses = iter([0.0, 0.8 * SILENCE_SECONDS, 0.8 * SILENCE_SECONDS, 100 * SILENCE_SECONDS])

        async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(next(pauses))
            writer.write(WHOLE)

        pool, clock = EnginePool(2.0, SILENCE_SECONDS), asyncio.get_running_loop().time
        async with serving(say) as server:
            for _ in range(3):
                assert (await asked(pool, server.url))[2] == b"hello"
            begun = clock()
            with pytest.raises(EngineSilent):
                await asked(pool, server.url)
            assert (server.connections, clock() - begun >= SILENCE_SECONDS) == (1, True)

    async def test_a_slow_client_is_not_a_silent_engine(self) -> None:
        sent = asyncio.Event()
        pool = EnginePool(2.0, SILENCE_SECONDS)
        async with serving(saying_much(sent)) as server:
            answer = await pool.post(server.url, {}, b"")
            with pytest.raises(TimeoutError):
                # The engine has to wait, instead of the gateway's memory taking it all.
                await asyncio.wait_for(sent.wait(), 4 * SILENCE_SECONDS)
            assert len(await answer.read()) == MUCH_BYTES
            answer.release()
            await sent.wait()


class Sink:
    """Full after each chunk until it is told to go on."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.goes_on = asyncio.Event()

    def add(self, chunk: bytes) -> bool:
        self.chunks.append(chunk)
        return not self.goes_on.is_set()

    async def drained(self) -> None:
        await self.goes_on.wait()


class TestPouring:
    async def test_what_came_with_the_head_is_poured_too(self, pool: EnginePool) -> None:
        sink = Sink()
        sink.goes_on.set()
        async with serving(saying(CHUNKED)) as server:
            for _ in range(2):
                answer = await pool.post(server.url, {}, b"{}")
                await answer.pour(sink.add, sink.drained)
                answer.release()
            assert server.connections == 1
        assert b"".join(sink.chunks) == b"hellohello"

    async def test_pieces_that_come_later(self, pool: EnginePool) -> None:
        sink = Sink()
        sink.goes_on.set()
        async with serving(saying(*(bytes([byte]) for byte in CHUNKED))) as server:
            answer = await pool.post(server.url, {}, b"{}")
            await answer.pour(sink.add, sink.drained)
            answer.release()
        assert sink.chunks == [b"h", b"e", b"l", b"l", b"o"]

    async def test_a_full_sink_makes_the_engine_wait_and_is_no_silence_of_it(self) -> None:
        sent, sink = asyncio.Event(), Sink()
        pool = EnginePool(2.0, SILENCE_SECONDS)
        async with serving(saying_much(sent)) as server:
            answer = await pool.post(server.url, {}, b"")
            pouring = asyncio.create_task(answer.pour(sink.add, sink.drained))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sent.wait(), 4 * SILENCE_SECONDS)
            assert not pouring.done()
            sink.goes_on.set()
            await pouring
            answer.release()
        assert sum(map(len, sink.chunks)) == MUCH_BYTES

    async def test_a_client_that_left_while_it_was_full_leaves_nobody_a_paused_connection(
        self, pool: EnginePool
    ) -> None:
        sink = Sink()
        async with serving(saying(CHUNKED)) as server:
            answer = await pool.post(server.url, {}, b"")
            pouring = asyncio.create_task(answer.pour(sink.add, sink.drained))
            await eventually(lambda: sink.chunks == [b"hello"])
            pouring.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pouring
            answer.release()
            assert (await asked(pool, server.url))[2] == b"hello"
            assert server.connections == 2

    @pytest.mark.parametrize(
        ("say", "error"),
        [
            (saying(CHUNKED[:-20], closing=True), EngineLost),
            (saying(CHUNKED[:-20], b"no length\r\n"), EngineLost),
            (saying(CHUNKED[:-20]), EngineSilent),
        ],
        ids=["lost", "no HTTP", "silent"],
    )
    async def test_an_engine_that_fails(self, say: Say, error: type[Exception]) -> None:
        pool, sink = EnginePool(2.0, SILENCE_SECONDS), Sink()
        sink.goes_on.set()
        async with serving(say) as server:
            answer = await pool.post(server.url, {}, b"")
            with pytest.raises(error):
                await answer.pour(sink.add, sink.drained)
            answer.release()
            await eventually(lambda: server.open == 0)


class TestReuse:
    async def test_one_connection_carries_one_request_after_the_other(self, pool: EnginePool) -> None:
        async with serving(saying(WHOLE)) as server:
            for _ in range(5):
                await asked(pool, server.url)
            assert server.connections == 1
            await asyncio.gather(*(asked(pool, server.url) for _ in range(3)))
            assert server.connections == 3

    async def test_an_idle_connection_is_closed(self, pool: EnginePool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_pool, "IDLE_SECONDS", 0.05)
        async with serving(saying(WHOLE)) as server:
            await asked(pool, server.url)
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)
            assert (await asked(pool, server.url))[0] == 200
            assert server.connections == 2

    async def test_a_connection_that_the_engine_has_closed_is_not_used(self, pool: EnginePool) -> None:
        async with serving(saying(WHOLE, closing=True)) as server:
            await asked(pool, server.url)
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)
            # The farewell is on its way through the loop.
            await asyncio.sleep(0.01)
            await asked(pool, server.url)
            assert server.connections == 2

    async def test_what_nobody_asked_for_costs_the_connection(self, pool: EnginePool) -> None:
        async with serving(saying(WHOLE, b"HTTP/1.1 408 Request Timeout\r\n\r\n")) as server:
            await asked(pool, server.url)
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)
            assert await asked(pool, server.url) == (200, "application/json", b"hello")

    async def test_an_answer_that_is_left_costs_the_connection(self, pool: EnginePool) -> None:
        async with serving(saying(CHUNKED[:-20])) as server:
            answer = await pool.post(server.url, {}, b"")
            assert await anext(answer)
            answer.release()
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)

    async def test_a_request_that_is_given_up_costs_the_connection(self, pool: EnginePool) -> None:
        async with serving(saying()) as server:
            asking = asyncio.create_task(asked(pool, server.url))
            await eventually(lambda: len(server.requests) == 1, PATIENCE_SECONDS)
            asking.cancel()
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)

    async def test_a_closed_pool_has_no_connections(self, pool: EnginePool) -> None:
        async with serving(saying(WHOLE)) as server:
            await asked(pool, server.url)
            pool.close()
            await eventually(lambda: server.open == 0, PATIENCE_SECONDS)


class TestAddresses:
    async def test_nobody_listens(self, pool: EnginePool) -> None:
        with pytest.raises(EngineUnreachable, match="Connect call failed"):
            await pool.post(f"http://127.0.0.1:{free_port()}/", {}, b"")

    async def test_an_unknown_name(self, pool: EnginePool) -> None:
        with pytest.raises(EngineUnreachable):
            await pool.post("http://vllm.invalid:8000/", {}, b"")

    async def test_a_name_that_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def forever(*_: Any) -> tuple[str, ...]:
            await asyncio.Event().wait()
            return ()

        monkeypatch.setattr(engine_pool, "_lookup", forever)
        with pytest.raises(EngineUnreachable, match=r"vllm\.svc did not take a connection in time"):
            await EnginePool(0.05, PATIENCE_SECONDS).post("http://vllm.svc:8000/", {}, b"")

    async def test_the_next_address_is_tried(self, pool: EnginePool, monkeypatch: pytest.MonkeyPatch) -> None:
        async def two(*_: Any) -> tuple[str, ...]:
            return "127.0.0.2", "127.0.0.1"

        monkeypatch.setattr(engine_pool, "_lookup", two)
        async with serving(saying(WHOLE)) as server:
            assert (await asked(pool, f"http://vllm.svc:{server.port}/"))[0] == 200

    async def test_those_who_come_at_once_share_a_lookup(
        self, pool: EnginePool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lookups = 0

        async def counted(*_: Any) -> tuple[str, ...]:
            nonlocal lookups
            lookups += 1
            await asyncio.sleep(0.01)
            return ("127.0.0.1",)

        monkeypatch.setattr(engine_pool, "_lookup", counted)
        async with serving(saying(WHOLE)) as server:
            await asyncio.gather(*(asked(pool, f"http://vllm.svc:{server.port}/") for _ in range(20)))
            assert lookups == 1
            monkeypatch.setattr(engine_pool, "ADDRESSES_SECONDS", 0.0)
            other = EnginePool(2.0, PATIENCE_SECONDS)
            await asked(other, f"http://vllm.svc:{server.port}/")
            first = await other.post(f"http://vllm.svc:{server.port}/", {}, b"")
            second = await other.post(f"http://vllm.svc:{server.port}/", {}, b"")
            assert lookups == 3
            first.close()
            second.close()


PLACES = {
    "http://vllm-1.finetune.svc:8000/v1/completions": Place(
        "vllm-1.finetune.svc", 8000, False, b"POST /v1/completions HTTP/1.1\r\nHost: vllm-1.finetune.svc:8000\r\n"
    ),
    "https://vllm.example.com": Place("vllm.example.com", 443, True, b"POST / HTTP/1.1\r\nHost: vllm.example.com\r\n"),
    "http://[::1]:80/a": Place("::1", 80, False, b"POST /a HTTP/1.1\r\nHost: [::1]:80\r\n"),
}


@pytest.mark.parametrize("url", PLACES)
def test_a_place(url: str) -> None:
    assert place_of(url) == PLACES[url]


@pytest.mark.parametrize("url", ["vllm:8000", "ftp://vllm", "http://", "http://vllm:port/", "http://vllm:99999/"])
def test_no_place(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's words differ
        place_of(url)
