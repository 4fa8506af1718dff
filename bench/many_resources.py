"""An API server with a hundred thousand finished trainings, each with a version: made up as they are asked for."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

Object = dict[str, Any]
NAMESPACE = "finetune"
FAMILIES = 500
BOOKMARK_SECONDS = 30.0
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
BASE_MODEL = {"name": "tiny-llama", "source": {"volume": {"claimName": "models", "path": "tiny-llama"}}}
PHASES = ("Succeeded", "Succeeded", "Succeeded", "Failed", "Cancelled")
DOMAINS = ("ethics", "law", "medicine")
TEST = {
    "metadata": {"name": "duel", "namespace": NAMESPACE, "uid": "test-uid", "resourceVersion": "1"},
    "spec": {
        "model": "family-0",
        "baseline": {"base": True},
        "candidate": {"modelVersion": "family-0-v1"},
        "prompts": ["What is justice?"],
        "decision": {"maxVotes": 1_000_000},
    },
}
KINDS = {
    "finetunejobs": "FineTuneJob",
    "modelversions": "ModelVersion",
    "abtests": "ABTest",
    "batchinferences": "BatchInference",
}
TRAININGS_PER_BATCH = 10


def training(number: int) -> Object:
    """A finished one."""
    family, ended = f"family-{number % FAMILIES}", BEGIN + timedelta(minutes=number)
    version = f"{family}-v{number // FAMILIES + 1}"
    return {
        "metadata": _metadata(f"training-{number:06}", number),
        "spec": {
            "model": family,
            "baseModel": BASE_MODEL,
            "dataset": {"ratings": {"philosopher": f"p{number % 7}", "domain": DOMAINS[number % len(DOMAINS)]}},
        },
        "status": {
            "phase": PHASES[number % len(PHASES)],
            "message": "trained and published",
            "modelVersion": version,
            "completionTime": ended.isoformat(),
            "dataset": {"rows": 1200, "testRows": 133, "digest": DIGEST},
            "progress": {"percent": 100, "step": 600, "totalSteps": 600, "loss": "0.21"},
            "result": {"finalLoss": "0.21", "testLoss": "0.4", "baseTestLoss": "1.2"},
            "cost": {"currency": "USD", "spent": "1.42"},
        },
    }


def version(number: int) -> Object:
    """What that training made; the first of each family is loaded."""
    family, count = f"family-{number % FAMILIES}", number // FAMILIES + 1
    loaded = {"type": "Loaded", "status": "True", "reason": "Listed", "lastTransitionTime": BEGIN.isoformat()}
    active = {"engine": "engine", "promotedAt": BEGIN.isoformat(), "conditions": [loaded], "state": "Deployed"}
    return {
        "metadata": _metadata(f"{family}-v{count}", number),
        "spec": {
            "model": family,
            "version": count,
            "baseModel": BASE_MODEL,
            "artifact": {"uri": f"volume://artifacts/{NAMESPACE}/{family}/{number}/adapter", "digest": DIGEST},
            "lineage": {"fineTuneJob": f"training-{number:06}", "jobUid": f"uid-training-{number:06}"},
        },
        "status": active if count == 1 else {"state": "Ready"},
    }


def batch(number: int) -> Object:
    """A finished one of the first version of a family."""
    family, ended = f"family-{number % FAMILIES}", BEGIN + timedelta(minutes=number)
    rows = {"total": 1200, "done": 1200, "failed": 3}
    return {
        "metadata": _metadata(f"batch-{number:06}", number),
        "spec": {
            "modelVersion": f"{family}-v1",
            "dataset": {"ratings": {"secretRef": {"name": "ratings-db", "key": "url"}}},
        },
        "status": {
            "phase": "Succeeded",
            "message": "every row is answered",
            "completionTime": ended.isoformat(),
            "progress": {"percent": 100} | rows,
        },
    }


def _metadata(name: str, number: int) -> Object:
    created = (BEGIN + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "creationTimestamp": created}
    return metadata | {"resourceVersion": str(number + 1)}


class ManyResources:
    """Lists in chunks, watches on which nothing happens, and reviews that allow all."""

    def __init__(self, count: int) -> None:
        self.url = ""
        self.lists = 0
        self._count = count
        self._counts = {"abtests": 1, "batchinferences": count // TRAININGS_PER_BATCH}
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ManyResources"]:
        app = web.Application()
        app.router.add_post("/apis/authentication.k8s.io/v1/selfsubjectreviews", self._who)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._may)
        prefix = "/apis/finetune.dev/v1alpha1/namespaces/{namespace}/{plural}"
        app.router.add_get(prefix, self._list)
        app.router.add_get(prefix + "/{name}", self._get)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            self._over.set()
            await runner.cleanup()

    async def _who(self, _: web.Request) -> web.Response:
        return web.json_response({"status": {"userInfo": {"username": "ada"}}}, status=201)

    async def _may(self, _: web.Request) -> web.Response:
        return web.json_response({"status": {"allowed": True}}, status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            response = web.StreamResponse()
            await response.prepare(request)
            await self._tell_nothing(request.match_info["plural"], response)
            return response
        self.lists += 1
        plural = request.match_info["plural"]
        count = self._counts.get(plural, self._count)
        begin = int(request.query.get("continue") or 0)
        end = min(count, begin + int(request.query.get("limit", count)))
        metadata = {"resourceVersion": str(self._count), "continue": str(end) if end < count else ""}
        return web.json_response(
            {"items": [self._one(plural, each) for each in range(begin, end)], "metadata": metadata}
        )

    async def _tell_nothing(self, plural: str, response: web.StreamResponse) -> None:
        """As a watch does on which nothing happens: it says so now and then, lest it is taken for a broken one."""
        still = {"kind": KINDS[plural], "metadata": {"resourceVersion": str(self._count)}}
        line = json.dumps({"type": "BOOKMARK", "object": still}).encode() + b"\n"
        while not self._over.is_set():
            await response.write(line)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BOOKMARK_SECONDS):
                    await self._over.wait()

    async def _get(self, request: web.Request) -> web.Response:
        plural, name = request.match_info["plural"], request.match_info["name"]
        if plural == "abtests":
            return web.json_response(self._one(plural, 0))
        if plural in ("finetunejobs", "batchinferences"):
            return web.json_response(self._one(plural, int(name.rpartition("-")[2])))
        family, _, count = name.removeprefix("family-").partition("-v")
        return web.json_response(self._one(plural, (int(count) - 1) * FAMILIES + int(family)))

    def _one(self, plural: str, number: int) -> Object:
        made = {"finetunejobs": training, "modelversions": version, "batchinferences": batch}
        body = made[plural](number) if plural in made else TEST
        return {"apiVersion": "finetune.dev/v1alpha1", "kind": KINDS[plural], **body}
