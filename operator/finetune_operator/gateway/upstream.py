"""Passes a request to an engine and its answer back, byte for byte and as it comes.

An attempt is repeated only before the client has got its first byte: a whole answer has to be there, or the first event
of a stream, before any of it is handed on. Leaving `ask` early closes the connection, which is how an engine learns
that its client has gone.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import hdrs

from finetune_operator.contract.places import ENGINE_POD_HEADER
from finetune_operator.core.routing import Target
from finetune_operator.gateway import errors
from finetune_operator.gateway.aim import Aim
from finetune_operator.gateway.bodies import answered_model, ends_event, error_event, first_event
from finetune_operator.gateway.clients import Client
from finetune_operator.gateway.engine_connection import EngineAnswer, EngineLost, EngineSilent
from finetune_operator.gateway.engine_pool import EnginePool, EngineUnreachable
from finetune_operator.gateway.errors import GatewayError
from finetune_operator.gateway.exchange import REQUEST_ID_HEADER, Exchange
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.retries import BROKEN, Reason, Retries, Seat, WaitingRoom, luck
from finetune_operator.gateway.settings import GatewaySettings

WAITING_SHARE = 2
"""One engine's requests may wait in this part of the gateway's places, half of them: the others are for the others."""
FIRST_EVENT_MAX_BYTES = 1024 * 1024
GENERATING_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
SAID_MAX_BYTES = 200
EVENT_STREAM = "text/event-stream"
TRACE_HEADERS = ("traceparent", "tracestate")
PASSED_HEADERS = {"content-type": hdrs.CONTENT_TYPE, "retry-after": hdrs.RETRY_AFTER}


class Upstream:
    """The engines, by way of one connection pool."""

    def __init__(self, pool: EnginePool, settings: GatewaySettings, metrics: Metrics) -> None:
        self._pool = pool
        self._settings = settings
        self._metrics = metrics
        self._waiting = WaitingRoom(settings.max_concurrent_requests // WAITING_SHARE)

    async def pass_on(self, client: Client, aim: Aim, exchange: Exchange) -> None:
        """The engine's answer to the client; raises `GatewayError` as long as nothing has been sent."""
        async with self._ask(client.headers, aim, exchange) as begun:
            if begun.is_stream:
                await self._stream(client, aim.target, begun, exchange)
            else:
                whole = await self._whole(aim.target, begun, exchange)
                await client.answer(begun.answer.status, _answer_headers(begun.answer, exchange), whole)

    async def copy(self, aim: Aim, exchange: Exchange) -> None:
        """The engine's answer to nobody, read to its end; raises `GatewayError`."""
        async with self._ask({}, aim, exchange) as begun:
            if not begun.is_stream:
                await self._whole(aim.target, begun, exchange)
                return
            exchange.note_chunk(begun.head)
            async for chunk in begun.answer:
                exchange.note_chunk(chunk)
            exchange.status = begun.answer.status

    @asynccontextmanager
    async def _ask(self, received: Mapping[str, str], aim: Aim, exchange: Exchange) -> AsyncIterator["_Begun"]:
        """An answer whose rest is to be read within the block, where a broken one is a `GatewayError` as well."""
        begun = await self._begin(received, aim, exchange)
        name = aim.target.served_name
        try:
            yield begun
        except EngineSilent as error:
            raise errors.engine_silent(name, self._settings.answer_timeout_seconds) from error
        except EngineLost as error:
            raise errors.engine_failed(name, str(error)) from error
        finally:
            # What has not been read to its end is closed by this; a whole answer's connection is used again.
            begun.answer.release()

    async def _begin(self, received: Mapping[str, str], aim: Aim, exchange: Exchange) -> "_Begun":
        """Attempts until one succeeds, or no other is allowed."""
        retries, clock = Retries(self._settings.retry_seconds), asyncio.get_running_loop().time
        has_broken = False
        while True:
            target, seat = aim.target, self._waiting.seat(aim.target.url)
            try:
                while aim.target is target:
                    exchange.attempts += 1
                    begun_at = clock()
                    try:
                        return await self._attempt(
                            target, aim.request, self._headers(received, exchange), exchange, seat
                        )
                    except _Repeatable as failed:
                        exchange.engine_failed |= failed.reason is Reason.FAILED
                        has_broken |= failed.reason in BROKEN
                        pause_seconds = retries.pause_seconds(failed.reason, begun_at, clock(), luck())
                        if pause_seconds is None or not seat.take():
                            return failed.outcome()
                        self._metrics.retries.labels(failed.reason.value).inc()
                    # What has broken is a failure of the version that was asked, whoever else might answer now; and
                    # what may have broken one engine is not taken to another.
                    await (asyncio.sleep(pause_seconds) if has_broken else aim.pause(pause_seconds))
            finally:
                seat.leave()

    def _headers(self, received: Mapping[str, str], exchange: Exchange) -> dict[str, str]:
        headers = {name: received[name] for name in TRACE_HEADERS if name in received}
        headers[hdrs.CONTENT_TYPE] = "application/json"
        headers[REQUEST_ID_HEADER] = exchange.request_id
        if self._settings.engine_api_key:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self._settings.engine_api_key}"
        return headers

    async def _attempt(
        self, target: Target, body: bytes, headers: Mapping[str, str], exchange: Exchange, seat: Seat
    ) -> "_Begun":
        """An answer of which something may reach the client; raises `_Repeatable` where another attempt is allowed."""
        # Kept connections may all be to the pod that has just failed.
        fresh = exchange.attempts > 1
        try:
            answer = await self._pool.post(target.url + exchange.path, headers, body, fresh=fresh, connected=seat.leave)
            exchange.engine_pod = answer.headers.get(ENGINE_POD_HEADER)
            try:
                return await self._beginning(target, answer, exchange.path)
            except BaseException:
                answer.close()
                raise
        except EngineUnreachable as error:
            failure = errors.engine_unavailable(target.served_name, str(error))
            raise _Repeatable(Reason.UNREACHABLE, failure) from error
        except EngineSilent as error:
            raise errors.engine_silent(target.served_name, self._settings.answer_timeout_seconds) from error
        except EngineLost as error:
            raise _Repeatable(Reason.LOST, errors.engine_failed(target.served_name, str(error))) from error

    async def _beginning(self, target: Target, answer: EngineAnswer, path: str) -> "_Begun":
        await _refuse(target, answer, path)
        if _is_stream(answer):
            return _Begun(answer, await self._first_event(target, answer), is_stream=True)
        begun = _Begun(answer, await answer.read(), is_stream=False)
        if answer.status == 500:
            raise _Repeatable(Reason.FAILED, begun)
        return begun

    async def _whole(self, target: Target, begun: "_Begun", exchange: Exchange) -> bytes:
        answer, body = begun.answer, begun.head
        if answer.status == 200:
            _check_model(target, answered_model(body))
            exchange.note_whole(body)
        exchange.status = answer.status
        return body

    async def _stream(self, client: Client, target: Target, begun: "_Begun", exchange: Exchange) -> None:
        answer, head = begun.answer, begun.head
        exchange.note_first_token()
        try:
            await client.begin(_answer_headers(answer, exchange))
            await self._relay(client, target, answer, head, exchange)
            exchange.status = 200
        except GatewayError as failure:
            exchange.status, exchange.error = failure.status, failure.message
        except ConnectionResetError:
            # The client has gone: what an engine does has errors of its own.
            pass

    async def _first_event(self, target: Target, answer: EngineAnswer) -> bytes:
        """Everything up to the first event, whose model has been checked."""
        head = b""
        async for chunk in answer:
            head += chunk
            if (data := first_event(head)) is not None:
                if failure := error_event(data):
                    raise _Repeatable(Reason.FAILED, failure) if failure.status == 500 else failure
                if data != b"[DONE]":
                    _check_model(target, answered_model(data))
                return head
            if len(head) > FIRST_EVENT_MAX_BYTES:
                raise errors.engine_failed(target.served_name, "its stream does not consist of server-sent events")
        raise EngineLost("its stream ended before the first event")

    async def _relay(
        self, client: Client, target: Target, answer: EngineAnswer, head: bytes, exchange: Exchange
    ) -> None:
        """Chunk by chunk; a stream that breaks ends with an error event, or aborted where it broke within an event."""
        last = head

        def note(chunk: bytes) -> None:
            nonlocal last
            last = chunk
            exchange.note_chunk(chunk)

        try:
            await client.write(head)
            exchange.note_chunk(head)
            await client.relay(answer, note)
            await client.end()
        except (EngineSilent, EngineLost) as error:
            if isinstance(error, EngineSilent):
                failure = errors.engine_silent(target.served_name, self._settings.answer_timeout_seconds)
            else:
                failure = errors.engine_failed(target.served_name, str(error))
            if ends_event(last):
                await client.end(f"data: {failure.to_json()}\n\n".encode())
            else:
                client.abort()
            raise failure from error


@dataclass(frozen=True)
class _Begun:
    """An answer that is good so far: its body, or everything up to the first event of a stream."""

    answer: EngineAnswer
    head: bytes
    is_stream: bool


class _Repeatable(Exception):
    """Another attempt may succeed, and none has reached the client; else this is what it is told."""

    def __init__(self, reason: Reason, told: "GatewayError | _Begun") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self._told = told

    def outcome(self) -> "_Begun":
        """Of the last attempt; raises `GatewayError` where it has no answer."""
        if isinstance(self._told, GatewayError):
            raise self._told from self
        return self._told


def _is_stream(answer: EngineAnswer) -> bool:
    return answer.status == 200 and answer.content_type == EVENT_STREAM


async def _refuse(target: Target, answer: EngineAnswer, path: str) -> None:
    """Raises for answers that concern the gateway and the engine rather than the client."""
    match answer.status:
        case 503:
            overloaded = errors.engine_unavailable(target.served_name, "it is overloaded or stopping")
            raise _Repeatable(Reason.REFUSED, overloaded)
        case 404 if b"does not exist" in await answer.read():
            lost = errors.engine_unavailable(target.served_name, "it has lost the adapter and will load it again")
            raise _Repeatable(Reason.UNLOADED, lost)
        case 404:
            words = (await answer.read())[:SAID_MAX_BYTES].decode(errors="replace")
            if path not in GENERATING_PATHS:
                raise errors.unsupported_path(target.served_name, path, words)
            # What every engine has is missing at this one.
            stranger = errors.engine_unavailable(target.served_name, f"what answers in its place says {words!r}")
            raise _Repeatable(Reason.UNLOADED, stranger)
        case 401 | 403:
            raise errors.engine_failed(target.served_name, "it refuses the gateway's VLLM_API_KEY")


def _check_model(target: Target, answered: str | None) -> None:
    if answered != target.served_name:
        raise errors.wrong_model(target.served_name, answered)


def _answer_headers(answer: EngineAnswer, exchange: Exchange) -> dict[str, str]:
    passed = {name: answer.headers[received] for received, name in PASSED_HEADERS.items() if received in answer.headers}
    return passed | exchange.headers(answered=True)
