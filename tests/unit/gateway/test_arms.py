"""Which arm of an ABTest answers: that of the subject or the one that is asked for, and never the other one instead."""

import pytest

from tests.unit.gateway.clients import INTERNAL_TOKEN, answer_of, chat, subject_in
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import abtest_object
from tests.waiting import eventually


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
