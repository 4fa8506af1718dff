"""Passes a request to an engine and its answer back, byte for byte and as it comes.

An attempt is repeated only before the client has got its first byte. Leaving `ask` early closes the connection, which
is how an engine learns that its client has gone.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import hdrs

from finetune_operator.core.routing import Target
from finetune_operator.gateway import errors
from finetune_operator.gateway.bodies import answered_model, ends_event, error_event, first_event
from finetune_operator.gateway.clients import Client
from finetune_operator.gateway.engine_connection import EngineAnswer, EngineLost, EngineSilent
from finetune_operator.gateway.engine_pool import EnginePool, EngineUnreachable
from finetune_operator.gateway.errors import GatewayError
from finetune_operator.gateway.exchange import REQUEST_ID_HEADER, Exchange
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.settings import GatewaySettings

MAX_ATTEMPTS = 3
MAX_LOST_ATTEMPTS = 2
"""An engine that died may have died of this very request, hence no more than one repetition."""
RETRY_DELAY_SECONDS = 0.1
FIRST_EVENT_MAX_BYTES = 1024 * 1024
EVENT_STREAM = "text/event-stream"
TRACE_HEADERS = ("traceparent", "tracestate")
PASSED_HEADERS = {"content-type": hdrs.CONTENT_TYPE, "retry-after": hdrs.RETRY_AFTER}


class Upstream:
    """The engines, by way of one connection pool."""

    def __init__(self, pool: EnginePool, settings: GatewaySettings, metrics: Metrics) -> None:
        self._pool = pool
        self._settings = settings
        self._metrics = metrics

    async def pass_on(self, client: Client, target: Target, body: bytes, exchange: Exchange) -> None:
        """The engine's answer to the client; raises `GatewayError` as long as nothing has been sent."""
        async with self._ask(client.headers, target, body, exchange) as answer:
            if _is_stream(answer):
                await self._stream(client, target, answer, exchange)
            else:
                whole = await self._whole(target, answer, exchange)
                await client.answer(answer.status, _answer_headers(answer, exchange), whole)

    async def copy(self, target: Target, body: bytes, exchange: Exchange) -> None:
        """The engine's answer to nobody, read to its end; raises `GatewayError`."""
        async with self._ask({}, target, body, exchange) as answer:
            if not _is_stream(answer):
                await self._whole(target, answer, exchange)
                return
            exchange.note_chunk(await self._first_event(target, answer))
            async for chunk in answer:
                exchange.note_chunk(chunk)
            exchange.status = answer.status

    @asynccontextmanager
    async def _ask(
        self, received: Mapping[str, str], target: Target, body: bytes, exchange: Exchange
    ) -> AsyncIterator[EngineAnswer]:
        """An engine's answer to be read within the block, where a broken one is a `GatewayError` as well."""
        headers = self._headers(received, exchange)
        while True:
            exchange.attempts += 1
            try:
                answer = await self._attempt(target, exchange.path, body, headers, exchange.attempts)
                break
            except _Repeatable as failure:
                self._metrics.retries.labels(failure.reason).inc()
                await asyncio.sleep(RETRY_DELAY_SECONDS * exchange.attempts)
        try:
            yield answer
        except EngineSilent as error:
            raise errors.engine_silent(target.served_name, self._settings.answer_timeout_seconds) from error
        except EngineLost as error:
            raise errors.engine_failed(target.served_name, str(error)) from error
        finally:
            # What has not been read to its end is closed by this; a whole answer's connection is used again.
            answer.release()

    def _headers(self, received: Mapping[str, str], exchange: Exchange) -> dict[str, str]:
        headers = {name: received[name] for name in TRACE_HEADERS if name in received}
        headers[hdrs.CONTENT_TYPE] = "application/json"
        headers[REQUEST_ID_HEADER] = exchange.request_id
        if self._settings.engine_api_key:
            headers[hdrs.AUTHORIZATION] = f"Bearer {self._settings.engine_api_key}"
        return headers

    async def _attempt(
        self, target: Target, path: str, body: bytes, headers: Mapping[str, str], attempt: int
    ) -> EngineAnswer:
        """An engine's answer that may reach the client; raises `_Repeatable` where another attempt is allowed."""
        try:
            answer = await self._pool.post(target.url + path, headers, body)
            refusal = await _refusal(target, answer)
        except EngineUnreachable as error:
            failure = errors.engine_unavailable(target.served_name, str(error))
            raise _repeatable("unreachable", failure, attempt, MAX_ATTEMPTS) from error
        except EngineSilent as error:
            raise errors.engine_silent(target.served_name, self._settings.answer_timeout_seconds) from error
        except EngineLost as error:
            failure = errors.engine_failed(target.served_name, str(error))
            raise _repeatable("lost", failure, attempt, MAX_LOST_ATTEMPTS) from error
        if refusal:
            # Closed rather than kept, so that the next attempt's connection may reach another pod.
            answer.close()
            if refusal.status == 503:
                raise _repeatable("refused", refusal, attempt, MAX_ATTEMPTS)
            raise refusal
        return answer

    async def _whole(self, target: Target, answer: EngineAnswer, exchange: Exchange) -> bytes:
        body = await answer.read()
        if answer.status == 200:
            _check_model(target, answered_model(body))
            exchange.note_whole(body)
        exchange.status = answer.status
        return body

    async def _stream(self, client: Client, target: Target, answer: EngineAnswer, exchange: Exchange) -> None:
        head = await self._first_event(target, answer)
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
                    raise failure
                if data != b"[DONE]":
                    _check_model(target, answered_model(data))
                return head
            if len(head) > FIRST_EVENT_MAX_BYTES:
                raise errors.engine_failed(target.served_name, "its stream does not consist of server-sent events")
        raise errors.engine_failed(target.served_name, "its stream ended before the first event")

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


class _Repeatable(Exception):
    """Another attempt may succeed, and none has reached the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _is_stream(answer: EngineAnswer) -> bool:
    return answer.status == 200 and answer.content_type == EVENT_STREAM


def _repeatable(reason: str, failure: GatewayError, attempt: int, max_attempts: int) -> Exception:
    return _Repeatable(reason) if attempt < max_attempts else failure


async def _refusal(target: Target, answer: EngineAnswer) -> GatewayError | None:
    """Answers that concern the gateway and the engine rather than the client."""
    match answer.status:
        case 503:
            return errors.engine_unavailable(target.served_name, "it is overloaded or stopping")
        case 404 if b"does not exist" in await answer.read():
            return errors.engine_unavailable(target.served_name, "it has lost the adapter and will load it again")
        case 401 | 403:
            return errors.engine_failed(target.served_name, "it refuses the gateway's VLLM_API_KEY")
    return None


def _check_model(target: Target, answered: str | None) -> None:
    if answered != target.served_name:
        raise errors.wrong_model(target.served_name, answered)


def _answer_headers(answer: EngineAnswer, exchange: Exchange) -> dict[str, str]:
    passed = {name: answer.headers[received] for received, name in PASSED_HEADERS.items() if received in answer.headers}
    return passed | exchange.headers(answered=True)
