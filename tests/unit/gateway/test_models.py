"""The models that clients find: their names, where they come from, and what is said of those that can't answer."""

from typing import Any

import openai
import pytest

from tests.builders import merged
from tests.unit.gateway.clients import MESSAGES, answer_of, refused_with
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import DIGEST, abtest_object
from tests.waiting import eventually


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
