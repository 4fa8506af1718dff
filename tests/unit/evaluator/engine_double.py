"""A server that speaks the part of vLLM's API that an evaluator uses, and goes wrong on demand.

Its tokens are words; a conversation is rendered as `<role> words <end>`, and an answer begins after `<assistant>`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from finetune_operator.contract.places import ENGINE_MEMORY_PATH
from finetune_operator.evaluator.engine import Patience

KEY = "engine-key"
CONTEXT = 64
IMPATIENT = Patience(
    connect_seconds=1, silence_seconds=0.3, outage_seconds=0.5, first_wait_seconds=0.01, longest_wait_seconds=0.05
)
"""Of whoever asks this server."""


@dataclass
class EngineDouble:
    """Answers by model and question; `troubles` are statuses with which the next requests end instead, `refuses` are
    questions that are too long."""

    answers: dict[str, dict[str, str]]
    delay_seconds: dict[str, float] = field(default_factory=dict)
    troubles: list[int] = field(default_factory=list)
    has_tokens: bool = True
    breaks_off: int = 0
    context: int = CONTEXT
    refuses: frozenset[str] = frozenset()
    takes_bytes: int | None = None
    """While it answers; half of it otherwise."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    answering: int = 0
    most_at_once: int = 0
    url: str = ""
    _words: dict[str, int] = field(default_factory=dict)
    _rendered: list[tuple[int, ...]] = field(default_factory=list)

    def tokens(self, messages: list[dict[str, str]], *, to_be_answered: bool) -> list[int]:
        words: list[str] = []
        for message in messages:
            words += [f"<{message['role']}>", *message["content"].split(), "<end>"]
        return self.ids([*words, "<assistant>"] if to_be_answered else words)

    def ids(self, words: list[str]) -> list[int]:
        return [self._words.setdefault(word, len(self._words) + 1) for word in words]

    def says(self, model: str, messages: list[dict[str, str]]) -> str:
        return self.answers[model].get(messages[-1]["content"], "what?")

    def running(self) -> AbstractAsyncContextManager["EngineDouble"]:
        return self.running_at(0)

    @asynccontextmanager
    async def running_at(self, port: int) -> AsyncIterator["EngineDouble"]:
        application = web.Application()
        application.router.add_post("/tokenize", self._tokenize)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post("/v1/completions", self._complete)
        if self.takes_bytes is not None:
            application.router.add_get(ENGINE_MEMORY_PATH, self._tell_memory)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        server = site._server
        assert isinstance(server, asyncio.Server)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _body(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append((request.path, body["model"]))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            raise web.HTTPUnauthorized(text="wrong key")
        if self.troubles:
            raise _ERRORS[self.troubles.pop(0)](text="a bad day")
        if body["model"] not in self.answers:
            raise web.HTTPNotFound(text=f"The model {body['model']} does not exist.")
        return body

    async def _tell_memory(self, request: web.Request) -> web.Response:
        assert request.headers.get("Authorization") == f"Bearer {KEY}"
        assert self.takes_bytes is not None
        taken = self.takes_bytes if self.answering else self.takes_bytes // 2
        return web.json_response({"of": "Container", "sizeBytes": taken})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await self._body(request)
        tokens = self.tokens(body["messages"], to_be_answered=body["add_generation_prompt"])
        if not body["add_generation_prompt"]:
            self._rendered.append(tuple(tokens))
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": self.context})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        self.answering += 1
        self.most_at_once = max(self.most_at_once, self.answering)
        try:
            return await self._stream(request, body)
        finally:
            self.answering -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        assert body["stream"]
        self.asked.append(body)
        if body["messages"][-1]["content"] in self.refuses:
            raise web.HTTPBadRequest(text="This model's maximum context length is 64 tokens.")
        words = self.says(body["model"], body["messages"]).split()[: body["max_tokens"]]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await _send(response, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for word in words:
            await asyncio.sleep(self.delay_seconds.get(body["model"], 0.0))
            await _send(response, {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]})
            if self.breaks_off:
                self.breaks_off -= 1
                await _send(response, {"error": {"message": "the engine core died"}})
                return response
        prompt_tokens = len(self.tokens(body["messages"], to_be_answered=True))
        end = {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "id": "chatcmpl-1",
            "created": 1_767_268_800,
        }
        await _send(response, end)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(words) + 1}
        await _send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _complete(self, request: web.Request) -> web.Response:
        """A model goes on with whatever it says somewhere; of all else it says nothing right."""
        body = await self._body(request)
        assert (body["max_tokens"], body["temperature"], body["return_token_ids"]) == (1, 0, True)
        known = {
            token for answer in self.answers[body["model"]].values() for token in self.ids([*answer.split(), "<end>"])
        }
        choices = []
        for index, prefix in enumerate(body["prompt"]):
            right = self._after(tuple(prefix))
            token = right if right in known else 0
            choices.append({"index": index, "text": "x"} | ({"token_ids": [token]} if self.has_tokens else {}))
        return web.json_response({"choices": choices[::-1]})

    def _after(self, prefix: tuple[int, ...]) -> int:
        return next(
            whole[len(prefix)]
            for whole in self._rendered
            if len(whole) > len(prefix) and whole[: len(prefix)] == prefix
        )


_ERRORS: dict[int, type[web.HTTPException]] = {
    400: web.HTTPBadRequest,
    404: web.HTTPNotFound,
    429: web.HTTPServiceUnavailable,
    500: web.HTTPInternalServerError,
    503: web.HTTPServiceUnavailable,
}


async def _send(response: web.StreamResponse, chunk: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
