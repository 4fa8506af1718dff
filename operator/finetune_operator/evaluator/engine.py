"""vLLM's OpenAI server, asked one thing at a time; what does not answer is asked again, with patience.

Paths and fields: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from finetune_operator.contract.evaluation import EngineMemory
from finetune_operator.contract.places import ENGINE_MEMORY_PATH
from finetune_operator.logs import cause, get_logger

T = TypeVar("T")
Message = dict[str, str]

RETRIED_STATUSES = frozenset({404, 408, 409, 425, 429})
"""404: after a restart an engine has its base model before it has the adapter."""

MEMORY_TIMEOUT = aiohttp.ClientTimeout(total=5)
"""The next look may tell."""

logger = get_logger(__name__)


class Unavailable(Exception):
    """Somebody did not answer for as long as was waited."""


class EngineUnavailable(Unavailable):
    """The engine did not answer for as long as was waited; another pod may try again."""


class EngineRefused(Exception):
    """The engine answered that it will not do this, with this HTTP status; it would answer the same again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Trouble(Exception):
    """One request went wrong in a way that may pass."""


@dataclass(frozen=True)
class Patience:
    """How long is waited for what; tests wait less."""

    connect_seconds: float = 10.0
    silence_seconds: float = 300.0
    """Between two parts of an answer."""
    outage_seconds: float = 600.0
    """From the first failure of a request to giving up."""
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 30.0


@dataclass(frozen=True)
class Sampling:
    """How an answer is made; greedy where nothing is said. What is None is not asked for."""

    max_tokens: int
    temperature: float = 0
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """One answer, and how long it took; of the attempt that succeeded. `id`, `created` and `finish_reason` are as the
    engine told them."""

    text: str
    prompt_tokens: int
    tokens: int
    seconds: float
    seconds_to_first_token: float
    id: str = ""
    created: int = 0
    finish_reason: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A conversation in tokens, and how many tokens prompt and answer may have together."""

    tokens: tuple[int, ...]
    context: int


async def persist(who: str, ask: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """Ask again what the network or `Trouble` kept from an answer. Raises `Unavailable` once patience ends."""
    wait, failing_since = patience.first_wait_seconds, 0.0
    while True:
        try:
            return await ask()
        except (Trouble, aiohttp.ClientError, TimeoutError) as error:
            now = time.monotonic()
            failing_since = failing_since or now
            if now - failing_since + wait > patience.outage_seconds:
                raise Unavailable(f"{who} did not answer for {now - failing_since:.0f} s: {cause(error)}") from error
            logger.warning("no answer, asking again", of=who, error=cause(error), wait_seconds=wait)
        await asyncio.sleep(wait)
        wait = min(2 * wait, patience.longest_wait_seconds)


class Engine:
    """Raises `EngineUnavailable` and `EngineRefused`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, api_key: str, patience: Patience) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._patience = patience
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=patience.connect_seconds, sock_read=patience.silence_seconds
        )

    async def prompt(self, model: str, messages: list[Message], *, answered: bool = False) -> Prompt:
        """The conversation by the model's own chat template; not `answered`, it ends where an answer begins."""
        body = {"model": model, "messages": messages, "add_generation_prompt": not answered}
        told = await self._persist(lambda: self._json("/tokenize", body))
        return Prompt(tuple(told["tokens"]), int(told["max_model_len"]))

    async def answer(self, model: str, messages: list[Message], sampling: Sampling) -> Answer:
        """Streamed, so that silence is known from a long answer."""
        asked_for = {name: value for name, value in asdict(sampling).items() if value is not None}
        body = {
            "model": model,
            "messages": messages,
            **asked_for,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return await self._persist(lambda: self._stream(body))

    async def next_tokens(self, model: str, prefixes: Sequence[tuple[int, ...]]) -> list[int] | None:
        """What the model ranks first after each of these; None where the engine does not tell tokens.

        `prompt_logprobs` would tell it at once, but ends an engine with LoRA: of its logits processor only the tokens
        that are to be sampled have an adapter (vLLM 0.32, `punica_cpu.add_lora_logits`).
        """
        body = {
            "model": model,
            "prompt": [list(prefix) for prefix in prefixes],
            "max_tokens": 1,
            "temperature": 0,
            # vLLM takes these from the model's generation_config.json where a request names none.
            "repetition_penalty": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "return_token_ids": True,
        }
        told = await self._persist(lambda: self._json("/v1/completions", body))
        return _next_tokens(told["choices"], len(prefixes))

    async def memory(self) -> EngineMemory | None:
        """What the pod that answers takes just now; None where none tells it, which is no reason to ask again."""
        try:
            async with self._session.get(
                self._url + ENGINE_MEMORY_PATH, headers=self._headers, timeout=MEMORY_TIMEOUT
            ) as response:
                return EngineMemory.model_validate_json(await response.read()) if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            logger.info("the engine's memory is not known", error=cause(error))
            return None

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await persist("the engine", ask, self._patience)
        except Unavailable as error:
            raise EngineUnavailable(str(error)) from error

    async def _json(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        async with self._session.post(
            self._url + path, json=body, headers=self._headers, timeout=self._timeout
        ) as response:
            await _check(path, response)
            try:
                told: dict[str, Any] = await response.json()
            except ValueError as error:
                raise Trouble(f"{path} answered no JSON: {error}") from error
            return told

    async def _stream(self, body: Mapping[str, object]) -> Answer:
        path, started = "/v1/chat/completions", time.monotonic()
        parts: list[str] = []
        first: float | None = None
        usage: Mapping[str, int] | None = None
        told: dict[str, Any] = {}
        async with self._session.post(
            self._url + path, json=body, headers=self._headers, timeout=self._timeout
        ) as response:
            await _check(path, response)
            async for line in response.content:
                if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                    continue
                try:
                    chunk = json.loads(line[5:])
                except ValueError as error:
                    raise Trouble(f"{path} streamed no JSON: {error}") from error
                if broken := chunk.get("error"):
                    raise Trouble(f"{path} broke off: {broken}")
                told |= {name: chunk[name] for name in ("id", "created") if name in chunk}
                for choice in chunk.get("choices", ()):
                    if text := choice.get("delta", {}).get("content"):
                        first = first or time.monotonic()
                        parts.append(text)
                    if reason := choice.get("finish_reason"):
                        told["finish_reason"] = reason
                usage = chunk.get("usage") or usage
        ended = time.monotonic()
        if usage is None:
            raise Trouble(f"{path} ended without its usage")
        return Answer(
            "".join(parts),
            int(usage["prompt_tokens"]),
            int(usage["completion_tokens"]),
            ended - started,
            (first or ended) - started,
            **told,
        )


async def _check(path: str, response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    told = f"{path} answered {response.status}: {(await response.text())[:300]}"
    if response.status >= 500 or response.status in RETRIED_STATUSES:
        raise Trouble(told)
    raise EngineRefused(told, response.status)


def _next_tokens(choices: Sequence[Mapping[str, Any]], count: int) -> list[int] | None:
    found = {int(choice["index"]): int(tokens[0]) for choice in choices if (tokens := choice.get("token_ids"))}
    return [found[index] for index in range(count)] if found.keys() == set(range(count)) else None
