"""The gateway as clients see it: the unmodified OpenAI client and plain HTTP, against a real engine."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import openai
import pytest

from finetune_operator.core.request_ids import version_of
from finetune_operator.core.split import assign, pseudonym
from tests.builders import merged
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import HOST, Engine, SampleIntake, free_port
from tests.unit.resource_builders import DIGEST, abtest_object
from tests.waiting import eventually

INTERNAL_TOKEN = "internal"  # noqa: S105 - of this test
MESSAGES: list[Any] = [{"role": "user", "content": "Who are you?"}]


def chat(model: str, **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": MESSAGES} | members).encode()


async def answer_of(world: World, model: str, **members: Any) -> tuple[int, dict[str, Any], Any]:
    async with world.post(data=chat(model, **members)) as response:
        return response.status, await response.json(), response.headers


async def test_the_openai_client_chats(gateway: World) -> None:
    async with gateway.client() as client:
        for asked, served in {"plato": "plato-v1", "plato-v2": "plato-v2", "tiny": "tiny"}.items():
            answer = await client.chat.completions.with_raw_response.create(model=asked, messages=MESSAGES)
            assert answer.parse().model == served
            assert answer.headers["x-finetune-version"] == served
            assert answer.headers["x-request-id"] == gateway.engine.requests[-1].headers["x-request-id"]
            assert "x-finetune-arm" not in answer.headers


async def test_the_request_id_tells_which_version_was_asked(world: World) -> None:
    world.put(abtest_object(percent=50))
    asked = {"plato-v1": "plato-v1", "tiny": None, "plato": "plato-v2"}
    async with world.gateway(internal_token=INTERNAL_TOKEN):
        for model, version in asked.items():
            _, _, headers = await answer_of(world, model, user=subject_in("candidate"))
            uid = world.version(version)["metadata"]["uid"] if version else None
            assert version_of(headers["x-request-id"], INTERNAL_TOKEN) == uid
        world.engine.failures = [400]
        status, _, headers = await answer_of(world, "plato-v1")
        assert (status, version_of(headers["x-request-id"], INTERNAL_TOKEN)) == (400, "uid-of-finetune-plato-v1")


async def test_without_a_key_the_request_id_tells_nothing(gateway: World) -> None:
    _, _, headers = await answer_of(gateway, "plato-v1")
    assert "." not in headers["x-request-id"]


async def test_the_openai_client_streams(gateway: World) -> None:
    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="plato", messages=MESSAGES, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
    assert words == ["I ", "am ", "plato-v1", ""]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_the_other_endpoints(gateway: World, path: str) -> None:
    async with gateway.post(path, data=chat("plato")) as response:
        assert (await response.json())["model"] == "plato-v1"
    assert gateway.engine.requests[-1].path == path


async def test_the_first_words_of_a_stream_come_before_its_end(gateway: World) -> None:
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)
        gateway.engine.proceed.set()
        rest = await response.read()
    assert first == Engine.event("plato-v1", "I ")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_bodies_pass_byte_for_byte(gateway: World) -> None:
    raw = b'{ "messages":[],"seed":1.0e2, "model": "plato" ,"unknown":"\\u00e9"}'
    async with gateway.post(data=raw) as response:
        assert await response.read() == Engine.whole_answer("plato-v1").encode()
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert gateway.engine.bodies == [raw.replace(b'"plato"', b'"plato-v1"')]


async def test_the_engine_gets_our_key_and_not_the_clients(world: World) -> None:
    async with world.gateway(tokens=("secret-1", "secret-2")), world.client(api_key="secret-2") as client:
        await client.chat.completions.create(model="plato", messages=MESSAGES)
    assert world.engine.requests[-1].headers["Authorization"] == "Bearer engine-key"


async def test_tokens_are_asked_for(world: World) -> None:
    async with world.gateway(tokens=("secret",)):
        async with world.client(api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError, match="with a token of this gateway"):
                await client.models.list()
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="plato", messages=MESSAGES)
        async with world.session.get(f"{world.url}/healthz") as response:
            assert response.status == 200
    assert world.engine.requests == []


async def test_the_list_of_models(gateway: World) -> None:
    async with gateway.client() as client:
        assert {model.id async for model in client.models.list()} == {"plato", "plato-v1", "plato-v2", "tiny"}
        one = await client.models.retrieve("finetune/plato")
    assert one.model_dump(exclude_none=True) == {
        "id": "plato",
        "object": "model",
        "created": 0,
        "owned_by": "finetune-operator",
        "root": "plato-v1",
        "parent": "tiny",
        "finetune": {"namespace": "finetune", "meaning": "alias", "version": "plato-v1", "lineage": {"digest": DIGEST}},
    }


async def test_a_version_says_where_it_comes_from(gateway: World) -> None:
    made = merged(
        gateway.version("plato-v2"),
        {
            "metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"},
            "spec": {
                "lineage": {
                    "fineTuneJob": "plato-2",
                    "datasetDigest": DIGEST,
                    "initFrom": {"modelVersion": "plato-v1", "digest": DIGEST},
                }
            },
        },
    )
    gateway.put(made)

    async def is_told() -> dict[str, Any]:
        found: dict[str, Any] = (await gateway.models())["plato-v2"]
        return found if "fineTuneJob" in found["finetune"]["lineage"] else {}

    told = await eventually(is_told)
    assert (told["parent"], told["created"]) == ("tiny", 1767268800)
    assert told["finetune"]["lineage"] == {
        "digest": DIGEST,
        "fineTuneJob": "plato-2",
        "datasetDigest": DIGEST,
        "initFrom": "plato-v1",
    }


async def test_an_unknown_model(gateway: World) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="kant", messages=MESSAGES)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("kant")
    assert caught.value.body == {
        "message": "the model `kant` does not exist; models: plato, plato-v1, plato-v2, tiny",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert gateway.engine.requests == []


async def test_a_version_that_is_not_loaded(gateway: World) -> None:
    gateway.put(gateway.version("plato-v3", loaded=False, message="loading"))
    await eventually(lambda: refused_with(gateway, "plato-v3", 503))
    status, body, headers = await answer_of(gateway, "plato-v3")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "model_not_ready", "2")
    assert body["error"]["message"] == "plato-v3 is not loaded: loading"


async def test_an_archived_version_is_not_worth_asking_again(gateway: World) -> None:
    gateway.put(gateway.version("plato-v3", loaded=False, state="Archived"))
    await eventually(
        lambda: reason_of_refusal(gateway, "plato-v3", "plato-v3 is archived: set its spec.state to Ready")
    )
    status, body, headers = await answer_of(gateway, "plato-v3")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert "Retry-After" not in headers


async def reason_of_refusal(world: World, model: str, message: str) -> bool:
    return bool((await answer_of(world, model))[1]["error"]["message"] == message)


async def refused_with(world: World, model: str, status: int) -> bool:
    return (await answer_of(world, model))[0] == status


async def test_a_name_of_two_namespaces(world: World) -> None:
    world.put(world.version("plato-v1", namespace="other", promoted=1))
    async with world.gateway(namespaces=("finetune", "other")):
        status, body, _ = await answer_of(world, "plato")
        assert (status, body["error"]["code"]) == (409, "model_ambiguous")
        assert "finetune/plato (alias), other/plato (alias); ask for one of these" in body["error"]["message"]
        assert (await answer_of(world, "other/plato"))[1]["model"] == "plato-v1"
        assert set(await world.models()) == {
            "finetune/plato", "finetune/plato-v1", "finetune/tiny", "other/plato", "other/plato-v1", "other/tiny",
            "plato-v2",
        }  # fmt: skip


BAD_REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"hello", 400, "invalid_body"),
    "no model": (b"{}", 400, "invalid_body"),
    "too large": (b" " * 2000, 413, "request_too_large"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_bad_requests(world: World, case: str) -> None:
    raw, status, code = BAD_REQUESTS[case]
    async with world.gateway(max_body_bytes=1000), world.post(data=raw) as response:
        body = await response.json()
    assert (response.status, body["error"]["code"], body["error"]["type"]) == (status, code, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/v1/chat/completions/..%2f..%2fv1/load_lora_adapter", 404),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_nothing_else_is_passed_on(gateway: World, method: str, path: str, status: int) -> None:
    async with gateway.session.request(method, gateway.url + path, data=chat("plato")) as response:
        assert response.status == status
        assert "message" in (await response.json())["error"]
    assert gateway.engine.requests == []


async def test_a_rollback_takes_effect_for_the_next_request(gateway: World) -> None:
    gateway.put(gateway.version("plato-v2", promoted=2))
    await eventually(lambda: answers_as(gateway, "plato-v2"))
    gateway.put(gateway.version("plato-v2", promoted=2, state="Ready"))
    started = time.monotonic()
    await eventually(lambda: answers_as(gateway, "plato-v1"))
    assert time.monotonic() - started < 2
    gateway.put(gateway.version("plato-v1", promoted=1, state="Deployed"), gateway.version("plato-v2", promoted=9))
    await eventually(lambda: answers_as(gateway, "plato-v1"))


async def answers_as(world: World, served: str) -> bool:
    async with world.post(data=chat("plato")) as response:
        return bool(response.headers["x-finetune-version"] == served)


async def test_a_request_in_flight_keeps_its_version_over_a_switch(gateway: World) -> None:
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        await response.content.readuntil(b"\n\n")
        gateway.put(gateway.version("plato-v2", promoted=2))
        await eventually(lambda: is_alias_of(gateway, "plato-v2"))
        gateway.engine.proceed.set()
        assert b"plato-v1" in await response.read()


async def is_alias_of(world: World, served: str) -> bool:
    return bool((await world.models())["plato"]["root"] == served)


async def test_the_api_server_may_go_away(gateway: World) -> None:
    await gateway.kubernetes.stop()
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"
    assert await gateway.ready()
    gateway.put(gateway.version("plato-v2", promoted=2))
    await gateway.kubernetes.start()
    await eventually(lambda: answers_as(gateway, "plato-v2"))


@pytest.mark.parametrize("missing", ["abtests", "modelversions"])
async def test_nothing_is_routed_before_all_is_known(world: World, missing: str) -> None:
    world.kubernetes.failing = {missing}
    async with world.gateway(wait=False):
        await eventually(lambda: refused_with_starting(world))
        assert not await world.ready()
        assert await world.models() == {}
        world.kubernetes.failing = set()
        await eventually(world.ready)
        assert (await answer_of(world, "plato"))[0] == 200


async def refused_with_starting(world: World) -> bool:
    try:
        return bool((await answer_of(world, "plato"))[1]["error"]["code"] == "starting")
    except aiohttp.ClientConnectionError:
        return False


async def test_an_unreadable_resource_keeps_its_last_form(gateway: World) -> None:
    broken = gateway.version("plato-v1", promoted=1)
    broken["spec"]["baseModel"] = "from the future"
    gateway.put(broken)
    await eventually(lambda: has_metric(gateway, "finetune_gateway_unreadable_resources", 1))
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"


async def has_metric(world: World, name: str, value: float) -> bool:
    return await world.metric(name) == value


async def test_metrics_count_what_was_served(gateway: World) -> None:
    await answer_of(gateway, "plato")
    await answer_of(gateway, "kant")
    async with gateway.session.get(f"{gateway.url}/metrics") as response:
        text = await response.text()
    assert 'finetune_gateway_requests_total{arm="",served_name="plato-v1",status="200"} 1.0' in text
    assert 'finetune_gateway_requests_total{arm="",served_name="",status="404"} 1.0' in text
    assert "finetune_gateway_requests_in_flight 0.0" in text


async def test_the_time_to_the_first_token_is_that_of_streams(gateway: World) -> None:
    """A whole answer comes with its last token; its time is in the duration."""
    await answer_of(gateway, "plato")
    assert await gateway.metric("finetune_gateway_time_to_first_token_seconds_count") == 0
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        await response.content.readuntil(b"\n\n")
        held_since = time.monotonic()
        await eventually(lambda: time.monotonic() - held_since > 0.3)
        gateway.engine.proceed.set()
        await response.read()
    await eventually(lambda: has_metric(gateway, "finetune_gateway_time_to_first_token_seconds_count", 1))
    first_token = await gateway.metric("finetune_gateway_time_to_first_token_seconds_sum")
    assert first_token < await gateway.metric("finetune_gateway_request_duration_seconds_sum") - 0.25


async def test_more_requests_than_allowed_are_told_to_come_back(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(max_concurrent_requests=1):
        first = asyncio.create_task(answer_of(world, "plato"))
        await world.engine.busy.wait()
        status, body, headers = await answer_of(world, "plato")
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "overloaded", "2")
        world.engine.proceed.set()
        assert (await first)[0] == 200


async def test_a_stop_lets_requests_in_flight_finish(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(drain_delay_seconds=0.5):
        under_way = asyncio.create_task(answer_of(world, "plato"))
        await world.engine.busy.wait()
        world.stop.set()
        await eventually(lambda: is_draining(world))
        assert world.process
        assert not world.process.done()
        world.engine.proceed.set()
        assert (await under_way)[1]["model"] == "plato-v1"
        await asyncio.wait_for(world.process, 5)


async def is_draining(world: World) -> bool:
    async with world.session.get(f"{world.url}/readyz") as response:
        return response.status == 503 and await response.text() == "draining\n"


def subject_in(arm: str, percent: int = 50) -> str:
    """A subject that the test of `abtest_object()` puts into this arm."""
    uid = abtest_object()["metadata"]["uid"]
    return next(f"user-{n}" for n in range(1000) if assign(uid, f"user-{n}", percent) == arm)


@pytest.mark.parametrize("where", ["header", "user", "safety_identifier"])
async def test_a_subject_keeps_its_arm(world: World, where: str) -> None:
    world.put(abtest_object(percent=50))
    async with world.gateway():
        for arm, served in {"baseline": "plato-v1", "candidate": "plato-v2"}.items():
            subject = subject_in(arm)
            members = {} if where == "header" else {where: subject}
            headers = {"x-finetune-subject": subject} if where == "header" else {}
            async with world.post(data=chat("plato", **members), headers=headers) as response:
                assert response.headers["x-finetune-arm"] == arm
                assert response.headers["x-finetune-version"] == (await response.json())["model"] == served
            assert (await answer_of(world, "plato-v1", user=subject))[1]["model"] == "plato-v1"


async def test_the_api_key_is_a_subject(world: World) -> None:
    world.put(abtest_object(percent=50))
    tokens = (subject_in("baseline"), subject_in("candidate"))
    async with world.gateway(tokens=tokens):
        for token, arm in zip(tokens, ("baseline", "candidate"), strict=True):
            headers = {"Authorization": f"Bearer {token}"}
            async with world.post(data=chat("plato"), headers=headers) as response:
                assert response.headers["x-finetune-arm"] == arm


async def test_what_each_alias_stands_for_now(world: World) -> None:
    async def active() -> list[tuple[str, Any]]:
        async with world.session.get(f"{world.url}/v1/models/active") as response:
            return [(each["id"], each["finetune"]) for each in (await response.json())["data"]]

    async with world.gateway():
        alone = {"namespace": "finetune", "meaning": "alias", "version": "plato-v1", "lineage": {"digest": DIGEST}}
        assert await active() == [("plato", alone)]
        test = abtest_object(percent=50)
        world.put(test)
        split = {
            "name": test["metadata"]["name"],
            "candidatePercent": 50,
            "shadowPercent": 0,
            "pairPercent": 0,
            "baseline": "plato-v1",
            "candidate": "plato-v2",
        }

        async def is_split() -> bool:
            return await active() == [("plato", {"namespace": "finetune", "meaning": "alias", "abTest": split})]

        await eventually(is_split)


async def test_an_arm_that_is_asked_for_answers_and_is_no_sample(world: World) -> None:
    world.put(abtest_object(percent=50))
    async with world.intake.running(), world.gateway(api_url=world.intake.url, internal_token=INTERNAL_TOKEN):
        for arm, served in {"baseline": "plato-v1", "candidate": "plato-v2"}.items():
            for subject in map(subject_in, ("baseline", "candidate")):
                headers = {"x-finetune-arm": arm}
                async with world.post(data=chat("plato", user=subject), headers=headers) as response:
                    assert response.headers["x-finetune-arm"] == arm
                    assert response.headers["x-finetune-version"] == (await response.json())["model"] == served
        await answer_of(world, "plato", user=subject_in("candidate"))
        await eventually(lambda: world.intake.samples)
    assert [sample["arm"] for sample in world.intake.samples] == ["candidate"]


async def test_embeddings_are_never_split(world: World) -> None:
    """Of one model for all, since an index and its queries must be."""
    world.put(abtest_object(percent=50))
    async with world.intake.running():
        async with world.gateway(api_url=world.intake.url, internal_token=INTERNAL_TOKEN):
            for subject in map(subject_in, ("baseline", "candidate")):
                async with world.post("/v1/embeddings", data=chat("plato", user=subject)) as response:
                    assert response.headers["x-finetune-arm"] == "baseline"
                    assert response.headers["x-finetune-version"] == (await response.json())["model"] == "plato-v1"
        assert world.intake.samples == []


NO_SUCH_ARM = {
    "another word": ("plato", "both", "x-finetune-arm is baseline or candidate, not 'both'"),
    "nothing": ("plato", "", "x-finetune-arm is baseline or candidate, not ''"),
    "a name without a test": ("plato-v1", "baseline", "no ABTest splits the traffic of `plato-v1`"),
}


@pytest.mark.parametrize(("name", "arm", "message"), NO_SUCH_ARM.values(), ids=NO_SUCH_ARM.keys())
async def test_an_arm_that_is_not_there_is_refused(world: World, name: str, arm: str, message: str) -> None:
    world.put(abtest_object(percent=50))
    async with world.gateway(), world.post(data=chat(name), headers={"x-finetune-arm": arm}) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["code"] == "invalid_arm"
    assert message in error["message"]


@pytest.mark.parametrize("state", [None, "Archived"])
async def test_an_arm_that_cannot_answer_is_an_error_and_not_the_other_arm(world: World, state: str | None) -> None:
    world.put(world.version("plato-v2", loaded=False, state=state), abtest_object(percent=50))
    async with world.intake.running(), world.gateway(api_url=world.intake.url, internal_token=INTERNAL_TOKEN):
        status, body, headers = await answer_of(world, "plato", user=subject_in("candidate"))
        assert (status, body["error"]["code"], headers["x-finetune-arm"]) == (503, "model_not_ready", "candidate")
        assert "x-finetune-version" not in headers
        assert (await answer_of(world, "plato", user=subject_in("baseline")))[0] == 200
        await eventually(lambda: len(world.intake.samples) == 2)
    assert [(sample["arm"], sample["status"]) for sample in world.intake.samples] == [
        ("candidate", 503),
        ("baseline", 200),
    ]


async def test_the_base_model_as_baseline(world: World) -> None:
    world.put(abtest_object(percent=50, baseline=None))
    async with world.gateway():
        assert (await answer_of(world, "plato", user=subject_in("baseline")))[1]["model"] == "tiny"


async def test_samples_reach_the_api(world: World) -> None:
    world.put(abtest_object(percent=50))
    async with world.intake.running(), world.gateway(api_url=world.intake.url + "/", internal_token=INTERNAL_TOKEN):
        _, _, headers = await answer_of(world, "plato", user=subject_in("candidate"))
        await answer_of(world, "plato-v1")
        world.engine.failures = [400]
        await answer_of(world, "plato", user=subject_in("candidate"))
        world.engine.breaks = "between"
        async with world.post(data=chat("plato", stream=True, user=subject_in("baseline"))) as response:
            await response.read()
        await eventually(lambda: len(world.intake.samples) == 2)
    whole, broken = world.intake.samples
    assert whole["latencyMs"] >= 0
    assert {key: whole[key] for key in ("abTest", "arm", "servedName", "status", "requestId")} == {
        "abTest": abtest_object()["metadata"]["uid"],
        "arm": "candidate",
        "servedName": "plato-v2",
        "status": 200,
        "requestId": headers["x-request-id"],
    }
    assert (broken["arm"], broken["status"]) == ("baseline", 502)
    uid, subjects = whole["abTest"], [subject_in(arm) for arm in ("candidate", "baseline")]
    assert [sample["subject"] for sample in (whole, broken)] == [pseudonym(uid, subject) for subject in subjects]
    assert [sample["candidatePercent"] for sample in (whole, broken)] == [50, 50]
    assert world.intake.tokens == {f"Bearer {INTERNAL_TOKEN}"}


TOLD = {"prompt_tokens": 7, "completion_tokens": 42, "total_tokens": 49}
ASKED_TO_TELL = {"stream": True, "stream_options": {"include_usage": True}}


async def test_samples_have_the_tokens_that_the_engine_tells(world: World) -> None:
    world.put(abtest_object(percent=50))
    world.engine.usage = TOLD
    async with world.intake.running(), world.gateway(api_url=world.intake.url):
        for members in ({}, ASKED_TO_TELL, {"stream": True}):
            async with world.post(data=chat("plato", user=subject_in("candidate"), **members)) as response:
                body = await response.read()
                if not members:
                    assert body == Engine.whole_answer("plato-v2", TOLD).encode()
                if members == ASKED_TO_TELL:
                    texts = (("I ", None), ("am ", None), ("plato-v2", None), ("", "stop"))
                    words = b"".join(Engine.event("plato-v2", *text) for text in texts)
                    assert body == words + Engine.usage_event("plato-v2", TOLD) + b"data: [DONE]\n\n"
        await eventually(lambda: len(world.intake.samples) == 3)
    told = [(sample["promptTokens"], sample["completionTokens"]) for sample in world.intake.samples]
    assert told == [(7, 42), (7, 42), (None, None)]


async def test_an_api_that_is_away_delays_nothing_and_gets_its_samples_later(world: World) -> None:
    world.put(abtest_object(percent=50))
    intake = SampleIntake()
    async with world.gateway(api_url=intake.url):
        for _ in range(3):
            assert (await answer_of(world, "plato"))[0] == 200
        intake.failures = [500]
        async with intake.running():
            await eventually(lambda: len(intake.samples) == 3)
    assert intake.calls == 2


async def test_samples_are_sent_before_the_end(world: World) -> None:
    world.put(abtest_object(percent=50))
    async with world.intake.running():
        async with world.gateway(api_url=world.intake.url):
            await answer_of(world, "plato")
        assert len(world.intake.samples) == 1


async def test_an_engine_that_does_not_exist(gateway: World) -> None:
    gateway.put(gateway.version("plato-v1", promoted=1, engine=str(free_port())))
    await eventually(lambda: refused_with(gateway, "plato", 503))
    status, body, headers = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
    assert HOST in body["error"]["message"]
    assert "x-finetune-version" not in headers
