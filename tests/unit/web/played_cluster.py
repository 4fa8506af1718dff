"""API server and gateway as far as the api and a test's operators ask them, by HTTP; the rest of both is not there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from aiohttp import web

from finetune_operator.kube.paths import path_of

Object = dict[str, Any]


class PlayedCluster:
    """Objects by plural, namespace and name, with the API server's rule on writes that are of an older state."""

    def __init__(self, *objects: tuple[str, Object]) -> None:
        self.url = ""
        self.verdicts: set[tuple[str, str]] = set()
        """What was ever written as verdict, with its time."""
        self.refused_writes = 0
        self._answers = count()
        self._objects = {
            path_of(plural, body["metadata"]["namespace"], body["metadata"]["name"]): body for plural, body in objects
        }
        for body in self._objects.values():
            body["metadata"]["resourceVersion"] = "1"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["PlayedCluster"]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/{path:apis/.+}", self._get)
        app.router.add_patch("/{path:apis/.+}/status", self._patch_status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.Response:
        asked = await request.json()
        # Another one each time, as a model that is sampled gives.
        message = {"role": "assistant", "content": f"{asked['model']} says {next(self._answers)}"}
        return web.json_response({"model": asked["model"], "choices": [{"message": message}]})

    async def _get(self, request: web.Request) -> web.Response:
        body = self._objects.get(f"/{request.match_info['path']}")
        return web.json_response(body) if body else web.json_response({"message": "not found"}, status=404)

    async def _patch_status(self, request: web.Request) -> web.Response:
        body, patch = self._objects[f"/{request.match_info['path']}"], json.loads(await request.read())
        metadata = body["metadata"]
        if patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            self.refused_writes += 1
            return web.json_response({"message": "the object has been modified"}, status=409)
        body["status"] = body.get("status", {}) | patch["status"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        if verdict := body["status"].get("verdict"):
            self.verdicts.add((verdict, body["status"]["concludedAt"]))
        return web.json_response(body)
