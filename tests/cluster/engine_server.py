"""A vLLM engine pod as far as the operator talks to it, with the refusals of the server image's guard."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER, AdapterList
from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.contract.places import ENGINE_PORT
from tests.cluster.operator_process import ENGINE_API_KEY


@dataclass(frozen=True)
class Refusal:
    """How the guard says no to an adapter."""

    reason: str
    message: str


class EngineServer:
    """One pod's server at its own loopback address."""

    def __init__(self, ip: str, told: AdapterList | MergedWeights, refusals: dict[str, Refusal]) -> None:
        self.ip = ip
        self.takes_adapters = isinstance(told, AdapterList)
        self.base_model = told.base_model_name
        models = told.adapters if isinstance(told, AdapterList) else (told,)
        self.loaded = {model.name: model.path for model in models if model.name not in refusals}
        self.calls: Counter[str] = Counter()
        self.probed: set[str] = set()
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.failures_left = 0
        self._refusals = refusals
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(middlewares=[self._authorized])
        application.router.add_get("/health", self._health)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/load_lora_adapter", self._load)
        application.router.add_post("/v1/unload_lora_adapter", self._unload)
        application.router.add_post("/v1/completions", self._complete)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.ip, ENGINE_PORT).start()

    async def stop(self) -> None:
        self.may_load.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        guarded = request.path != "/health"
        if guarded and request.headers.get("Authorization") != f"Bearer {ENGINE_API_KEY}":
            raise web.HTTPUnauthorized
        self.calls[request.path] += 1
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        parent = self.base_model if self.takes_adapters else None
        entries = [{"id": parent, "object": "model", "root": parent, "parent": None}] if parent else []
        for name, path in self.loaded.items():
            entries.append({"id": name, "object": "model", "root": path, "parent": parent})
        return web.json_response({"object": "list", "data": entries})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if not self.takes_adapters:
            return _error(404, "NotServed", "this server takes no adapters")
        await self.may_load.wait()
        name, path = body["lora_name"], body["lora_path"]
        if self.failures_left:
            self.failures_left -= 1
            return _error(500, "InternalServerError", "the engine has a bad day")
        if not request.headers.get(ADAPTER_DIGEST_HEADER, "").startswith("sha256:"):
            return _error(422, "DigestMissing", f"send {ADAPTER_DIGEST_HEADER}")
        if refusal := self._refusals.get(name):
            return _error(422, refusal.reason, refusal.message)
        if name in self.loaded:
            return _error(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        self.loaded[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if name not in self.loaded:
            return _error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        del self.loaded[name]
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: web.Request) -> web.Response:
        model = (await request.json())["model"]
        base_models = [self.base_model] if self.takes_adapters else []
        if model not in (*base_models, *self.loaded):
            return _error(404, "NotFoundError", f"The model `{model}` does not exist.")
        self.probed.add(model)
        return web.json_response({"object": "text_completion", "model": model, "choices": [{"text": " you"}]})


def _error(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": reason, "message": message, "code": status}}, status=status)
