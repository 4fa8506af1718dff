"""Real HTTP servers of a test's process: an engine that behaves as told, an API server, and the api's sample intake."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from finetune_operator.contract.places import ENGINE_POD_HEADER
from tests.builders import merged

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """Listens from `start` to `stop`, always on the same port."""

    def __init__(self, host: str = HOST, port: int | None = None) -> None:
        self.host = host
        self.port = port or free_port()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def application(self) -> web.Application:
        raise NotImplementedError

    async def start(self) -> None:
        self._runner = web.AppRunner(
            self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()


class Engine(Server):
    """Answers as vLLM does: the model's name comes back, unknown names are a 404, a stream is server-sent events."""

    def __init__(self, host: str = HOST, port: int | None = None) -> None:
        super().__init__(host, port)
        self.models = {"tiny", "plato-v1", "plato-v2"}
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.aborted = 0
        self.failures: list[int] = []
        """Statuses of the next answers, before it behaves again."""
        self.answers_as: str | None = None
        self.pod = "vllm-a-7c9d-x2x4"
        """Whose name each answer of a model tells, as the guard does; none where empty."""
        self.breaks: str | None = None
        """`before`, `within` or `between` events; `error event` reports the failure first; `no event` ends at once;
        `halfway` a whole answer."""
        self.usage: dict[str, int] | None = None
        """Tokens of each answer; a stream tells them only where it is asked to."""
        self.proceed = asyncio.Event()
        """Until then, whole answers do not begin, and streams do not go on after their first words."""
        self.proceed.set()
        self.speaks = asyncio.Event()
        """Until then, streams have a head and no event."""
        self.speaks.set()
        self.busy = asyncio.Event()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/{path:.+}", self._complete)
        return app

    async def kill(self) -> None:
        """As SIGKILL does: the kernel ends all connections, and takes no other."""
        for transport in {request.transport for request in self.requests} - {None}:
            transport.abort()  # type: ignore[union-attr]
        await self.stop()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append(request)
        self.bodies.append(raw)
        self.busy.set()
        body = json.loads(raw)
        try:
            if self.failures:
                return web.json_response({"error": {"message": "told to fail"}}, status=self.failures.pop(0))
            if body["model"] not in self.models:
                message = f"The model `{body['model']}` does not exist."
                return web.json_response({"error": {"message": message, "type": "NotFoundError"}}, status=404)
            name = self.answers_as or body["model"]
            if body.get("stream"):
                tells_usage = (body.get("stream_options") or {}).get("include_usage", False)
                return await self._stream(request, name, tells_usage)
            await self.proceed.wait()
            if self.breaks == "halfway":
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                response.content_length = 1000
                await response.prepare(request)
                await response.write(b'{"model"')
                return self._abort(request, response)
            if self.breaks and request.transport:
                request.transport.abort()
            text = self.whole_answer(name, self.usage)
            return web.Response(text=text, content_type="application/json", headers=self._told())
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise

    def _told(self) -> dict[str, str]:
        return {ENGINE_POD_HEADER: self.pod} if self.pod else {}

    @staticmethod
    def whole_answer(name: str, usage: dict[str, int] | None = None) -> str:
        """With spacing, number forms and a field that no re-serialisation would keep as they are."""
        told = f' "usage" : {json.dumps(usage)},' if usage else ""
        return (
            f'{{ "id":"1",  "object":"chat.completion","created":1, "model":"{name}",\n'
            f' "choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant",'
            f'"content":"I am {name} \\u00e9"}}}}],{told} "extra": 1.50e+1 }}'
        )

    @staticmethod
    def event(name: str, text: str, finish_reason: str | None = None) -> bytes:
        delta = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": name, "choices": [delta]}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    @staticmethod
    def usage_event(name: str, usage: dict[str, int]) -> bytes:
        """As vLLM ends a stream that was asked for its usage."""
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": name, "choices": []}
        return f"data: {json.dumps(chunk | {'usage': usage})}\n\n".encode()

    async def _stream(self, request: web.Request, name: str, tells_usage: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"} | self._told())
        await response.prepare(request)
        await self.speaks.wait()
        if self.breaks == "before":
            return self._abort(request, response)
        if self.breaks == "error event":
            await response.write(b'data: {"error": {"message": "told to fail", "code": 500}}\n\n')
            return response
        if self.breaks == "no event":
            return response
        for word in ("I ", "am ", name):
            await response.write(self.event(name, word))
        if self.breaks:
            await response.write(b'data: {"half' if self.breaks == "within" else b"")
            await self.proceed.wait()
            return self._abort(request, response)
        await self.proceed.wait()
        await response.write(self.event(name, "", "stop"))
        if self.usage and tells_usage:
            event = self.usage_event(name, self.usage)
            for part in (event[:50], event[50:]):
                await response.write(part)
        await response.write(b"data: [DONE]\n\n")
        return response

    @staticmethod
    def _abort(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        if request.transport:
            request.transport.abort()
        return response


class ApiServer(Server):
    """Lists and watches objects as a Kubernetes API server does."""

    def __init__(self) -> None:
        super().__init__()
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._version = 1
        self.failing: set[str] = set()
        """Plurals that can't be listed now."""
        self.unknown_tokens: set[str] = set()
        self.patched_by: list[str] = []
        """Who showed what with a patch that was made."""
        self.managers: list[str] = []
        """As whose writes those patches are remembered."""
        self.review_failures: list[int] = []
        """Statuses of the next answers to who somebody is."""
        self._watchers: set[tuple[str, str, asyncio.Queue[dict[str, Any]]]] = set()

    def application(self) -> web.Application:
        app = web.Application()
        collection = "/apis/finetune.dev/v1alpha1/namespaces/{namespace}/{plural}"
        app.router.add_get(collection, self._list_or_watch)
        app.router.add_patch(f"{collection}/{{name}}", self._patch)
        app.router.add_post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._who)
        return app

    def put(self, body: dict[str, Any]) -> None:
        """Create or replace an object."""
        self._version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        key = self._key(body)
        kind = "MODIFIED" if key in self._objects else "ADDED"
        self._objects[key] = body
        self._tell(key, kind, body)

    def delete(self, body: dict[str, Any]) -> None:
        self._version += 1
        gone = self._objects.pop(self._key(body))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(self._key(body), "DELETED", gone)

    @staticmethod
    def _key(body: dict[str, Any]) -> tuple[str, str, str]:
        return body["kind"].lower() + "s", body["metadata"]["namespace"], body["metadata"]["name"]

    def _tell(self, key: tuple[str, str, str], kind: str, body: dict[str, Any]) -> None:
        for plural, namespace, events in self._watchers:
            if key[:2] == (plural, namespace):
                events.put_nowait({"type": kind, "object": body})

    async def _who(self, request: web.Request) -> web.Response:
        """A token's own words are its user's name."""
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if token in self.unknown_tokens:
            return web.json_response({"message": "Unauthorized"}, status=401)
        if self.review_failures:
            return web.json_response({"message": "told to fail"}, status=self.review_failures.pop(0))
        return web.json_response({"status": {"userInfo": {"username": token}}}, status=201)

    async def _patch(self, request: web.Request) -> web.Response:
        shown = request.headers["Authorization"]
        if shown.removeprefix("Bearer ") in self.unknown_tokens:
            return web.json_response({"message": "Unauthorized"}, status=401)
        found = request.match_info
        key = (found["plural"], found["namespace"], found["name"])
        self.put(merged(self._objects[key], await request.json()))
        self.patched_by.append(shown)
        self.managers.append(request.query.get("fieldManager") or request.headers["User-Agent"])
        return web.json_response(self._objects[key])

    async def _list_or_watch(self, request: web.Request) -> web.StreamResponse:
        plural, namespace = request.match_info["plural"], request.match_info["namespace"]
        if plural in self.failing:
            return web.json_response({"message": "told to fail"}, status=500)
        if request.query.get("watch") != "true":
            items = [body for key, body in self._objects.items() if key[:2] == (plural, namespace)]
            return web.json_response({"items": items, "metadata": {"resourceVersion": str(self._version)}})
        if int(request.query["resourceVersion"]) != self._version:
            # A history is more than a test needs: whoever missed a change has to list again.
            return web.json_response({"message": "too old"}, status=410)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        watcher = (plural, namespace, events)
        self._watchers.add(watcher)
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(json.dumps(await events.get()).encode() + b"\n")
        finally:
            self._watchers.discard(watcher)


class SampleIntake(Server):
    """The receiving side of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[dict[str, Any]] = []
        self.shadows: list[dict[str, Any]] = []
        self.pairs: list[tuple[str, dict[str, Any]]] = []
        """Bodies by the uid of their test."""
        self.tokens: set[str] = set()
        self.usage: list[dict[str, Any]] = []
        """Reports."""
        self.usage_failures: list[int] = []
        self.failures: list[int] = []
        self.pair_failures: list[int] = []
        self.calls = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/internal/v1/samples", self._receive)
        app.router.add_post("/internal/v1/usage", self._receive_usage)
        app.router.add_put("/internal/v1/abtests/{uid}/pairs", self._receive_pairs)
        return app

    async def _receive_usage(self, request: web.Request) -> web.Response:
        self.usage.append(await request.json())
        return web.Response(status=self.usage_failures.pop(0) if self.usage_failures else 204)

    async def _receive_pairs(self, request: web.Request) -> web.Response:
        if self.pair_failures:
            return web.Response(status=self.pair_failures.pop(0))
        self.tokens.add(request.headers["Authorization"])
        self.pairs.append((request.match_info["uid"], await request.json()))
        return web.Response(status=204)

    async def _receive(self, request: web.Request) -> web.Response:
        self.calls += 1
        if self.failures:
            return web.Response(status=self.failures.pop(0))
        self.tokens.add(request.headers["Authorization"])
        batch = await request.json()
        self.samples.extend(batch["samples"])
        self.shadows.extend(batch["shadows"])
        return web.Response(status=204)
