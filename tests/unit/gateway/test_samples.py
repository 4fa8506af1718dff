"""What the api is told of a test's requests: each once, and later where the api was away."""

from finetune_operator.core.split import pseudonym
from tests.unit.gateway.clients import INTERNAL_TOKEN, answer_of, chat, subject_in
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import Engine, SampleIntake
from tests.unit.resource_builders import abtest_object
from tests.waiting import eventually


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
