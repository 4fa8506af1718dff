"""Completions at the api's own address: one unmodified client, one key; a real gateway and a played engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI

from finetune_operator.gateway.limits import Limits
from finetune_operator.web.app import create_app
from finetune_operator.web.gateway_client import gateway_client
from finetune_operator.web.openai_api.errors import COMPLETION_PATHS
from finetune_operator.web.settings import Settings
from tests.builders import version_object
from tests.unit.gateway.clients import MESSAGES, chat, subject_in
from tests.unit.gateway.conftest import World, furnished_world
from tests.unit.resource_builders import abtest_object
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import EDIT, User
from tests.unit.web.rest.test_files import listening, rows
from tests.waiting import eventually

CHAT = "/v1/chat/completions"
GATEWAY_KEY = "gateway-key"
TOKENS: dict[str, Any] = {"tokens": (GATEWAY_KEY, "another"), "internal_token": "internal-token"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return ENVIRONMENT | {
        "FINETUNE_NAMESPACES": "finetune",
        "FINETUNE_DATASETS_DIRECTORY": str(tmp_path / "datasets"),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
    }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with furnished_world() as furnished:
        yield furnished


@asynccontextmanager
async def api_before(rest: Rest, gateway_url: str, **changes: Any) -> AsyncIterator[str]:
    """Where the api listens that passes completions on to there."""
    known = {"gateway_url": gateway_url, "gateway_api_key": GATEWAY_KEY}
    values = {Settings.model_fields[name].alias: value for name, value in (known | changes).items()}
    told = {field.alias: getattr(rest.services.settings, name) for name, field in Settings.model_fields.items()}
    settings = Settings.model_validate(told | values)
    async with gateway_client(settings) as gateway:
        services = replace(rest.services, settings=settings, gateway=gateway, worker=WorkerThread())
        async with listening(replace(rest, app=create_app(services))) as url:
            yield url


def client_of(url: str, key: str = "editor") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


class Sent(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


async def sent(url: str, body: bytes, path: str = CHAT, key: str = "editor", **headers: str) -> Sent:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    login = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, data=body, headers=login | named) as response,
    ):
        return Sent(response.status, response.headers, await response.read())


async def test_one_client_trains_and_chats(rest: Rest, world: World) -> None:
    async with world.gateway(**TOKENS), api_before(rest, world.url) as url, client_of(url) as client:
        file = await client.files.create(file=("train.jsonl", rows(12)), purpose="fine-tune")
        job = await client.fine_tuning.jobs.create(
            model="Qwen/Qwen3-0.6B", training_file=file.id, suffix="plato", seed=7
        )
        await rest.cluster.tell(
            "finetunejobs", "finetune", job.id.rpartition(".")[2], phase="Succeeded", modelVersion="plato-v3"
        )
        rest.cluster.put("modelversions", version_object(3))
        world.engine.models.add("plato-v3")
        world.put(world.version("plato-v3"))
        # The names that a chat takes are those of the list, with a namespace before them or without.
        listed = {model.id: model.owned_by async for model in client.models.list()}
        assert listed == {"plato": "finetune", "tiny": "finetune", "plato-v2": "finetune", "plato-v3": "finetune"}
        for name in ("plato", "finetune/plato", "tiny", "plato-v3", "finetune/plato-v3", "finetune.plato-v3"):
            assert (await client.models.retrieve(name)).id == name.rpartition("/")[2].rpartition("finetune.")[2]
        trained = (await client.fine_tuning.jobs.retrieve(job.id)).fine_tuned_model
        assert trained == "plato-v3"
        assert trained in [model.id async for model in client.models.list()]

        async def is_routed() -> bool:
            return trained in await known_models(world)

        await eventually(is_routed)
        whole = await client.chat.completions.create(model=trained, messages=MESSAGES)
        assert (whole.model, whole.choices[0].message.content) == (trained, "I am plato-v3 é")
        stream = await client.chat.completions.create(model=trained, messages=MESSAGES, stream=True)
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(words) == "I am plato-v3"


async def known_models(world: World) -> set[str]:
    headers = {"Authorization": f"Bearer {GATEWAY_KEY}"}
    async with world.session.get(f"{world.url}/v1/models", headers=headers) as response:
        return {model["id"] for model in (await response.json())["data"]}


@pytest.mark.parametrize("path", COMPLETION_PATHS)
async def test_what_the_gateway_says_comes_as_it_is(rest: Rest, path: str) -> None:
    seen: list[tuple[str, bytes, Mapping[str, str]]] = []
    answer = b'{ "odd":  1.50e+1 }'

    async def say(request: web.Request) -> web.Response:
        seen.append((request.path, await request.read(), request.headers))
        told = {
            "Content-Type": "application/json",
            "Retry-After": "7",
            "x-request-id": "r.1",
            "x-finetune-arm": "candidate",
        }
        return web.Response(status=429, headers=told, body=answer)

    body = b'{"model": "plato",  "temperature": 1.50e+0}'
    async with played(say) as gateway, api_before(rest, gateway) as url:
        got = await sent(
            url, body, path, x_request_id="mine", x_finetune_subject="Zoë", x_finetune_caller="forged", cookie="c=d"
        )
    assert (got.status, got.body) == (429, answer)
    assert {name: got.headers[name] for name in ("Retry-After", "x-request-id", "x-finetune-arm")} == {
        "Retry-After": "7",
        "x-request-id": "r.1",
        "x-finetune-arm": "candidate",
    }
    (asked_path, asked_body, headers) = seen[0]
    assert (asked_path, asked_body) == (path, body)
    assert headers["Authorization"] == f"Bearer {GATEWAY_KEY}", "and nobody's own token"
    assert (headers["x-request-id"], headers["x-finetune-subject"]) == ("mine", "Zoë")
    assert headers["x-finetune-caller"] != "forged"
    assert "Cookie" not in headers


@asynccontextmanager
async def played(handler: Any) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{tail:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_a_stream_comes_while_it_is_made(rest: Rest, world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(**TOKENS), api_before(rest, world.url) as url, asking(url) as response:
        first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)
        assert first == world.engine.event("plato-v1", "I ")
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-finetune-version"] == "plato-v1"
        world.engine.proceed.set()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


@asynccontextmanager
async def asking(url: str, key: str = "editor", **members: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """For a stream."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, data=chat("plato", **({"stream": True} | members)), headers=headers) as response,
    ):
        yield response


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_who_leaves_ends_the_request(rest: Rest, world: World, stream: bool) -> None:
    world.engine.proceed.clear()
    async with world.gateway(**TOKENS), api_before(rest, world.url) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), asking(url, stream=stream) as response:
                await response.read()

        async def is_aborted() -> bool:
            return world.engine.aborted == 1

        await eventually(is_aborted)


async def test_an_answer_that_breaks_off_is_not_whole(rest: Rest) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"half"')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with played(break_off) as gateway, api_before(rest, gateway) as url, asking(url) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_gateway_that_is_away(rest: Rest, world: World) -> None:
    async with api_before(rest, world.url) as url, client_of(url) as client:
        with pytest.raises(
            openai.InternalServerError, match="the gateway, which answers completions, is away"
        ) as caught:
            await client.chat.completions.create(model="plato", messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (503, "gateway_unavailable")
    assert caught.value.response.headers["retry-after"]


async def test_a_gateway_that_does_not_take_the_apis_key(rest: Rest, world: World) -> None:
    async with world.gateway(tokens=("another",)), api_before(rest, world.url) as url, client_of(url) as client:
        with pytest.raises(openai.InternalServerError, match="FINETUNE_GATEWAY_API_KEY") as caught:
            await client.chat.completions.create(model="plato", messages=MESSAGES)
    assert caught.value.status_code == 502, "it is not the caller's key that is wrong"


WRONG: dict[str, tuple[bytes, int, str, str | None]] = {
    "no JSON": (b"{", 400, "invalid_request", None),
    "no model": (b"{}", 400, "invalid_request", "model"),
    "a model that is no text": (b'{"model": 7}', 400, "invalid_request", "model"),
    "too long": (json.dumps({"model": "plato", "user": "x" * 5000}).encode(), 413, "large_body", None),
    "a model that nobody knows": (chat("gone"), 404, "model_not_found", "model"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_mistakes(rest: Rest, world: World, case: str) -> None:
    body, status, code, param = WRONG[case]
    async with world.gateway(**TOKENS), api_before(rest, world.url, completion_max_bytes=4096) as url:
        got = await sent(url, body)
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"], error["param"]) == (status, code, param)
    assert error["message"]


async def test_more_than_other_requests_may_have_is_passed_on(rest: Rest, world: World) -> None:
    async with world.gateway(**TOKENS), api_before(rest, world.url, body_max_bytes=1024) as url:
        got = await sent(url, chat("plato", user="x" * 2_000_000))
    assert got.status == 200


@pytest.mark.parametrize(
    ("key", "status"), [("nobody", 403), ("stranger", 401), ("reader", 403), ("editor", 200), ("public-token", 200)]
)
async def test_who_may_ask(rest: Rest, world: World, key: str, status: int) -> None:
    async with world.gateway(**TOKENS), api_before(rest, world.url) as url:
        assert (await sent(url, chat("plato"), key=key)).status == status


class TestSeveralNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune,other"}

    @pytest.mark.parametrize(
        ("key", "model", "status"),
        [
            ("local", "finetune/plato", 200),
            ("local", "other/plato", 403),
            ("local", "plato", 403),
            ("editor", "plato", 200),
        ],
    )
    async def test_the_right_is_asked_for_where_the_name_says(
        self, rest: Rest, world: World, key: str, model: str, status: int
    ) -> None:
        rest.cluster.users["local"] = User("local", EDIT, {"finetune"})
        async with world.gateway(**TOKENS), api_before(rest, world.url) as url:
            got = await sent(url, chat(model), key=key)
        assert got.status == status
        assert model != "plato" or status == 200 or b"write <namespace>/plato" in got.body


class TestCallers:
    @pytest.fixture(autouse=True)
    def _second(self, rest: Rest) -> None:
        rest.cluster.users["second"] = User("second", EDIT)

    async def test_limits_are_those_of_each_caller(self, rest: Rest, world: World) -> None:
        limits = Limits(requests_per_minute=1)
        async with world.gateway(**TOKENS, limits=limits), api_before(rest, world.url) as url:
            statuses = [(await sent(url, chat("plato"), key=key)).status for key in ("editor", "second", "editor")]
            own = await world.session.post(
                world.url + CHAT, data=chat("plato"), headers={"Authorization": f"Bearer {GATEWAY_KEY}"}
            )
        assert statuses == [200, 200, 429]
        assert own.status == 200, "who asks the gateway itself has a limit of their own"

    async def test_of_an_open_gateway_too(self, rest: Rest, world: World) -> None:
        options: dict[str, Any] = {"internal_token": "internal-token", "limits": Limits(requests_per_minute=1)}
        async with world.gateway(**options), api_before(rest, world.url) as url:
            statuses = [(await sent(url, chat("plato"), key=key)).status for key in ("editor", "second", "editor")]
        assert statuses == [200, 200, 429]

    @pytest.mark.parametrize("forged", ["ada", "ada.0", f"ada.{'0' * 32}", "é.é"])
    async def test_nobody_else_can_name_a_caller(self, world: World, forged: str) -> None:
        headers = {"Authorization": f"Bearer {GATEWAY_KEY}"}
        async with world.gateway(**TOKENS, limits=Limits(requests_per_minute=1)):
            first = await world.session.post(world.url + CHAT, data=chat("plato"), headers=headers)
            named = headers | {"x-finetune-caller": forged}
            second = await world.session.post(world.url + CHAT, data=chat("plato"), headers=named)
        assert (first.status, second.status) == (200, 429)

    async def test_a_caller_keeps_the_arm_and_may_name_a_subject(self, rest: Rest, world: World) -> None:
        world.put(abtest_object(percent=50))
        rest.cluster.users |= {f"user-{number}": User(f"user-{number}", EDIT) for number in range(16)}
        async with world.gateway(**TOKENS), api_before(rest, world.url) as url:
            arms = {key: await arms_of(url, key) for key in rest.cluster.users if key.startswith("user-")}
            assert all(len(found) == 1 for found in arms.values())
            assert set.union(*arms.values()) == {"baseline", "candidate"}
            for arm in ("baseline", "candidate"):
                got = await sent(url, chat("plato"), x_finetune_subject=subject_in(arm))
                assert got.headers["x-finetune-arm"] == arm


async def arms_of(url: str, key: str) -> set[str]:
    return {(await sent(url, chat("plato"), key=key)).headers["x-finetune-arm"] for _ in range(2)}
