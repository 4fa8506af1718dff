"""ASGI middleware in front of vLLM: nothing without the API key, only the paths that the product uses, and no adapter
that was not verified.

vLLM asks for the key below /v1 alone, loads adapters from any path, and has further ways to load one (SageMaker's
/adapters); hence a list of what is served rather than of what is not.
"""

import asyncio
import hmac
import json
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from adapters import ADAPTERS_FILE_VARIABLE, ARTIFACTS_ROOT_VARIABLE, read_adapter_list, refuse_directory
from memory import memory_in_use

from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER, AdapterList
from finetune_operator.contract.evaluation import EngineMemory
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    ENGINE_API_KEY_VARIABLE,
    ENGINE_MEMORY_PATH,
    ENGINE_POD_HEADER,
)
from finetune_operator.core.artifacts import Expected, Refusal, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/ping", "/metrics", "/version"})
LOAD_PATH = "/v1/load_lora_adapter"
SERVED_PATHS = OPEN_PATHS | {
    LOAD_PATH,
    ENGINE_MEMORY_PATH,
    "/v1/unload_lora_adapter",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
}
ADAPTER_PATHS = frozenset({LOAD_PATH, "/v1/unload_lora_adapter"})
LARGEST_LOAD_REQUEST_BYTES = 64 * 1024


class Guard:
    """vLLM makes it with the application alone, so what it needs comes from the environment that serve.py set."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._api_key = os.environ[ENGINE_API_KEY_VARIABLE].encode()
        self._root = Path(os.environ.get(ARTIFACTS_ROOT_VARIABLE, ARTIFACTS_ROOT))
        # A server of merged weights has no list, and takes no adapters.
        file = os.environ.get(ADAPTERS_FILE_VARIABLE)
        self._adapters = read_adapter_list(Path(file)) if file else None
        self._served_paths = SERVED_PATHS if file else SERVED_PATHS - ADAPTER_PATHS
        self._look: asyncio.Future[EngineMemory | None] | None = None
        # Kubernetes gives a pod its name as the host's.
        self._pod = (ENGINE_POD_HEADER.encode(), socket.gethostname().encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = self._with_pod(send)
        path = scope["path"]
        if path not in self._served_paths:
            await answer(
                send, 404, "NotServed", f"{path} is not served here; served: {', '.join(sorted(self._served_paths))}"
            )
        elif path not in OPEN_PATHS and not self._has_key(scope):
            await answer(send, 401, "Unauthorized", "send Authorization: Bearer with the engine's API key")
        elif path == ENGINE_MEMORY_PATH:
            await self._tell_memory(send)
        elif path == LOAD_PATH and self._adapters:
            await self._load(self._adapters, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _with_pod(self, send: Send) -> Send:
        """A Service leads to any of an engine's pods, and only the pod itself can tell which one answered."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._pod]
            await send(message)

        return told

    async def _tell_memory(self, send: Send) -> None:
        # vLLM brings it along for GPUs and CPUs alike.
        from vllm.third_party import pynvml

        # One look at a time: a driver that hangs must not take up the threads that adapters are verified in.
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(asyncio.to_thread(memory_in_use, pynvml))
        found = await asyncio.shield(self._look)
        if found is None:
            await answer(send, 404, "Unknown", "neither NVML nor the control groups tell the memory of this container")
        else:
            await answer_json(send, 200, found.model_dump_json(by_alias=True))

    async def _load(self, adapters: AdapterList, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if body is None:
            await answer(send, 413, "TooLarge", f"a load request has at most {LARGEST_LOAD_REQUEST_BYTES} bytes")
            return
        refused = await asyncio.to_thread(self._refuse, adapters, body, header(scope, ADAPTER_DIGEST_HEADER))
        if refused:
            await answer(send, 422, refused.reason, refused.message)
            return
        await self._app(scope, replay(body, receive), send)

    def _refuse(self, adapters: AdapterList, body: bytes, digest: str) -> Refused | None:
        try:
            path = json.loads(body)["lora_path"]
        except (ValueError, KeyError, TypeError):
            path = None
        if not isinstance(path, str):
            return Refused(Refusal.OUTSIDE_ROOT, "the body has no lora_path: send {lora_name, lora_path} as JSON")
        if not digest:
            fact = f"the header {ADAPTER_DIGEST_HEADER} is missing"
            return Refused(Refusal.DIGEST_MISSING, f"{fact}: send the digest of the version that is meant")
        return refuse_directory(path, Expected(digest, adapters.base_model_name, adapters.max_lora_rank), self._root)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, key = header(scope, "authorization").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.encode(), self._api_key)


def header(scope: Scope, name: str) -> str:
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == wanted), "")


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large for a load request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_LOAD_REQUEST_BYTES:
            return None
        if not message.get("more_body"):
            return body


def replay(body: bytes, receive: Receive) -> Receive:
    """What was verified is what vLLM reads."""
    waiting = [body]

    async def next_message() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return next_message


async def answer(send: Send, status: int, reason: str, message: str) -> None:
    """An error in the form of OpenAI's API."""
    await answer_json(send, status, json.dumps({"error": {"type": str(reason), "message": message, "code": status}}))


async def answer_json(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
