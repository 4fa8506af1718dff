"""The api on a real SQLite file; the cluster and the arms are stand-ins by their interfaces."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from finetune_operator.kube.errors import NotFound, Unavailable, error_for
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.answering_models import AnsweringModel
from finetune_operator.web.app import create_app
from finetune_operator.web.services import ArmUnavailable, GatewayAnswer, Services
from finetune_operator.web.settings import Settings

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PUBLIC = {"Authorization": "Bearer public-token"}
INTERNAL = {"Authorization": "Bearer internal-token"}
ENVIRONMENT = {"FINETUNE_API_TOKEN": "public-token", "FINETUNE_INTERNAL_TOKEN": "internal-token"}
PROMPTS = ["What is justice?", "What is courage?", "What is a circle?"]


def sample(number: int, arm: str, status: int = 200, latency_ms: int = 100, test: str = "test-uid") -> dict[str, Any]:
    """Of one request, as a gateway posts it."""
    return {
        "abTest": test,
        "arm": arm,
        "servedName": "plato-v2",
        "status": status,
        "latencyMs": latency_ms,
        "requestId": f"request-{number}",
        "time": NOON.isoformat(),
    }


def ab_test(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "ABTest",
        "metadata": {"name": "v1-v2", "namespace": "finetune", "uid": "test-uid"},
        "spec": {
            "model": "plato",
            "baseline": {"base": True},
            "candidate": {"modelVersion": "plato-v2"},
            "prompts": PROMPTS,
        }
        | spec,
        "status": {},
    }


def model_version(name: str = "plato-v2") -> dict[str, Any]:
    return {
        "kind": "ModelVersion",
        "metadata": {"name": name, "namespace": "finetune", "uid": f"{name}-uid"},
        "spec": {
            "model": "plato",
            "version": 2,
            "baseModel": {"name": "tiny", "source": {"volume": {"claimName": "models", "path": "tiny"}}},
            "artifact": {"uri": "volume://artifacts/finetune/plato/1/adapter", "digest": f"sha256:{'0' * 64}"},
        },
    }


class Strangers:
    """An API server that knows nobody."""

    async def create(self, plural: str, namespace: str | None, body: Any) -> dict[str, Any]:
        raise error_for(401, "Unauthorized")


class FakeCluster:
    """Objects by (plural, namespace, name), read by the api itself; rest/ has one with callers."""

    def __init__(self) -> None:
        self.objects = {
            ("abtests", "finetune", "v1-v2"): ab_test(),
            ("modelversions", "finetune", "plato-v2"): model_version(),
        }
        self.away = False

    def on_behalf_of(self, token: str, field_manager: str, person: str | None = None) -> Strangers:
        return Strangers()

    async def token_of(self, namespace: str, service_account: str, lifetime_seconds: int) -> dict[str, Any]:
        raise error_for(403, "Forbidden")

    @property
    def test(self) -> dict[str, Any]:
        return self.objects["abtests", "finetune", "v1-v2"]

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        if self.away:
            raise Unavailable("connection refused")
        try:
            return self.objects[plural, namespace, name]
        except KeyError:
            raise NotFound(name, 404) from None


class FakeArms:
    """Each arm signs its answer and never gives the same again, but where it is told what to say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, str] = {}
        self.broken: set[str] = set()

    async def ask(self, served_name: str, prompt: str) -> str:
        self.asked.append((served_name, prompt))
        if served_name in self.broken:
            raise ArmUnavailable(f"{served_name} did not answer")
        return self.answers.get(served_name, f"{served_name} says {len(self.asked)}")


class FakeGateway:
    """Answers whatever is asked with the same completion; test_completions.py has a real one."""

    @asynccontextmanager
    async def asked(self, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[GatewayAnswer]:
        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"object": "chat.completion", "choices": []}'

        yield GatewayAnswer(200, ((b"content-type", b"application/json"),), chunks())

    async def models(self) -> tuple[AnsweringModel, ...]:
        return ()


class Clock:
    """A second passes with each look."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass
class Api:
    """The api and what stands around it."""

    client: httpx2.AsyncClient
    services: Services
    cluster: FakeCluster
    arms: FakeArms
    sides: list[bool] = field(default_factory=list)

    async def get(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx2.Response:
        return await self.client.get(path, headers=PUBLIC if headers is None else headers, **options)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.client.post(path, json=body, headers=PUBLIC if headers is None else headers)

    async def compare(self, evaluator: str = "ada") -> dict[str, Any]:
        response = await self.post("/v1/fine-tuning/ab-test/finetune/v1-v2/comparisons", {"evaluator": evaluator})
        assert response.status_code == 200, response.text
        return response.json()

    async def vote(self, comparison_id: str, vote: str, evaluator: str = "ada") -> httpx2.Response:
        body = {"comparison_id": comparison_id, "evaluator": evaluator, "vote": vote}
        return await self.post("/v1/fine-tuning/ab-test/finetune/v1-v2/vote", body)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    engine = async_engine(parse_url(f"sqlite:///{tmp_path}/api.db"))
    await migrate(engine)
    cluster, arms, sides = FakeCluster(), FakeArms(), list[bool]()
    services = Services(
        Settings.from_environment(ENVIRONMENT),
        engine,
        cluster,
        arms,
        now=Clock(),
        coin=lambda: sides.pop(0) if sides else True,
    )
    transport = httpx2.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        yield Api(client, services, cluster, arms, sides)
    await engine.dispose()
