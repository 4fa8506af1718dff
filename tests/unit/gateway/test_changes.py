"""Switching and loading: what is patched with whose rights, what is answered, and what a refusal says."""

from typing import Any

import pytest

from finetune_operator.core.routing import build_routes
from finetune_operator.gateway.changes import Load, Switch, load, parse_order, switch
from finetune_operator.gateway.errors import GatewayError
from finetune_operator.kube.errors import KubeError, NotFound, error_for
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import merged
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import abtest_object, version_object
from tests.waiting import eventually

V = version_object
Objects = list[dict[str, Any]]


class FakeCluster:
    """An API server that holds these versions; `failing` says what it answers to a patch of a name."""

    def __init__(self, objects: Objects, failing: dict[str, KubeError] | None = None) -> None:
        self.objects = {f"{body['metadata']['namespace']}/{body['metadata']['name']}": body for body in objects}
        self.failing = failing or {}
        self.patches: list[tuple[str, dict[str, Any]]] = []

    async def merge_patch(self, plural: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert plural == "modelversions"
        if name in self.failing:
            raise self.failing[name]
        key = f"{namespace}/{name}"
        self.patches.append((key, body["spec"]))
        self.objects[key] = merged(self.objects[key], body)
        return self.objects[key]


async def switched(objects: Objects, order: dict[str, Any], cluster: FakeCluster | None = None) -> dict[str, Any]:
    versions = [ModelVersion.parse(body) for body in objects if body["kind"] == "ModelVersion"]
    tests = [ABTest.parse(body) for body in objects if body["kind"] == "ABTest"]
    table = build_routes(versions, tests, lambda engine, namespace: f"http://{engine}.{namespace}")
    return await switch(Switch.model_validate(order), versions, table, cluster or FakeCluster(objects))


async def loaded(objects: Objects, order: dict[str, Any], cluster: FakeCluster | None = None) -> dict[str, Any]:
    versions = [ModelVersion.parse(body) for body in objects]
    return await load(Load.model_validate(order), versions, cluster or FakeCluster(objects))


V1, V2 = V("plato-v1", promoted=1), V("plato-v2")
PIN = {"state": "Deployed"}
FREE = {"state": None}
STAMPED = {"state": "Deployed", "observed_state": "Deployed"}

SWITCHES: dict[str, tuple[Objects, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = {
    "by name": ([V1, V2], {"model": "plato", "version": "plato-v2"}, [("finetune/plato-v2", PIN)]),
    "by number": ([V1, V2], {"model": "plato", "version": 2}, [("finetune/plato-v2", PIN)]),
    "by number as text": ([V1, V2], {"model": "plato", "version": "2"}, [("finetune/plato-v2", PIN)]),
    "by qualified model": (
        [V("plato-v1", namespace="other"), V1],
        {"model": "finetune/plato", "version": 1},
        [("finetune/plato-v1", PIN)],
    ),
    "an older pin loses by itself": (
        [V("plato-v1", promoted=1, **STAMPED), V2],
        {"model": "plato", "version": 2},
        [("finetune/plato-v2", PIN)],
    ),
    "back to a version that is pinned already": (
        [V("plato-v1", promoted=1, **STAMPED), V("plato-v2", promoted=2, **STAMPED)],
        {"model": "plato", "version": 1},
        [("finetune/plato-v1", PIN), ("finetune/plato-v2", FREE)],
    ),
    "a pin that the operator has not seen could win later": (
        [V("plato-v1", promoted=1, state="Deployed"), V2],
        {"model": "plato", "version": 2},
        [("finetune/plato-v2", PIN), ("finetune/plato-v1", FREE)],
    ),
    "pins of other models stay": (
        [V2, V("kant-v1", state="Deployed")],
        {"model": "plato", "version": 2},
        [("finetune/plato-v2", PIN)],
    ),
}


@pytest.mark.parametrize("case", SWITCHES)
async def test_what_a_switch_patches(case: str) -> None:
    objects, order, patches = SWITCHES[case]
    cluster = FakeCluster(objects)
    await switched(objects, order, cluster)
    assert cluster.patches == patches


@pytest.mark.parametrize("case", SWITCHES)
async def test_after_a_switch_its_version_is_the_active_one(case: str) -> None:
    objects, order, _ = SWITCHES[case]
    cluster = FakeCluster(objects)
    answer = await switched(objects, order, cluster)
    versions = [ModelVersion.parse(body) for body in cluster.objects.values()]
    table = build_routes(versions, [], lambda engine, namespace: "http://engine")
    (route,) = table.routes_of(f"finetune/{order['model'].removeprefix('finetune/')}")
    assert getattr(route.destination, "served_name", None) == answer["id"]


async def test_a_switch_answers_with_the_version_and_what_else_it_did() -> None:
    objects = [V("plato-v1", promoted=1, **STAMPED), V("plato-v2", promoted=2, **STAMPED)]
    assert await switched(objects, {"model": "plato", "version": 1}) == {
        "id": "plato-v1",
        "object": "model",
        "finetune": {
            "namespace": "finetune",
            "model": "plato",
            "version": "plato-v1",
            "requestedState": "Deployed",
            "state": None,
            "loaded": True,
            "message": "plato-v2 is no longer pinned",
        },
    }


async def test_a_switch_to_what_is_not_loaded_says_what_it_waits_for() -> None:
    answer = await switched([V1, V("plato-v2", loaded=False, message="loading")], {"model": "plato", "version": 2})
    assert (answer["finetune"]["loaded"], answer["finetune"]["message"]) == (False, "loading")


async def test_a_switch_says_what_becomes_of_a_running_test() -> None:
    answer = await switched([V1, V2, abtest_object()], {"model": "plato", "version": 2})
    assert answer["finetune"]["message"] == "ABTest duel does not split the requests to plato while plato-v2 is pinned"
    pinned_before = V("plato-v2", promoted=1, **STAMPED)
    answer = await switched([V1, pinned_before, abtest_object(started=5)], {"model": "plato", "version": 2})
    assert answer["finetune"]["message"].endswith("splits the requests to plato: cancel it to end that")


async def test_a_test_that_only_copies_decides_nothing() -> None:
    answer = await switched([V1, V2, abtest_object(percent=0, shadow=10)], {"model": "plato", "version": 2})
    assert answer["finetune"]["message"] is None


async def test_a_rival_that_is_deleted_meanwhile_is_no_failure() -> None:
    objects = [V("plato-v1", promoted=1, **STAMPED), V("plato-v2", promoted=2, **STAMPED)]
    cluster = FakeCluster(objects, {"plato-v2": NotFound("gone", 404)})
    assert (await switched(objects, {"model": "plato", "version": 1}, cluster))["id"] == "plato-v1"


async def test_a_switch_that_stops_half_way_says_how_far_it_got() -> None:
    objects = [V("plato-v1", promoted=1, **STAMPED), V("plato-v2", promoted=2, **STAMPED)]
    cluster = FakeCluster(objects, {"plato-v2": error_for(403, "no patch")})
    with pytest.raises(GatewayError, match="plato-v1 is pinned; plato-v2: no patch") as caught:
        await switched(objects, {"model": "plato", "version": 1}, cluster)
    assert caught.value.status == 403


UNKNOWN: dict[str, tuple[dict[str, Any], int, str]] = {
    "a model": ({"model": "kant", "version": 1}, 404, "the model `kant` does not exist; models: plato"),
    "a version": ({"model": "plato", "version": 9}, 404, "`plato` has no version `9`; versions: plato-v1, plato-v2"),
    "which namespace": ({"model": "plato", "version": 1}, 409, "finetune/plato, other/plato; name one of these"),
}


@pytest.mark.parametrize("case", UNKNOWN)
async def test_a_switch_to_what_nobody_knows(case: str) -> None:
    order, status, message = UNKNOWN[case]
    objects = [V1, V2] + ([V("plato-v1", namespace="other")] if case == "which namespace" else [])
    cluster = FakeCluster(objects)
    with pytest.raises(GatewayError, match=message) as caught:
        await switched(objects, order, cluster)
    assert (caught.value.status, cluster.patches) == (status, [])


REGISTERED = V("plato-v2", loaded=False, serving=False)
LOADS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a registered version": (REGISTERED, {}, {"serving": {}}),
    "by qualified name": (REGISTERED, {"model": "finetune/plato-v2"}, {"serving": {}}),
    "with its parameters": (
        REGISTERED,
        {"gpu_memory_utilization": 0.85, "max_model_len": 2048, "tensor_parallel_size": 2, "notes": "first"},
        {
            "serving": {"gpuMemoryUtilization": "0.85", "maxModelLen": 2048, "tensorParallelSize": 2},
            "notes": "first",
        },
    ),
    "a tiny share is no exponent": (
        REGISTERED,
        {"gpu_memory_utilization": "1e-3"},
        {"serving": {"gpuMemoryUtilization": "0.001"}},
    ),
    "an archived version": (V("plato-v2", loaded=False, state="Archived"), {}, {"serving": {}, "state": "Ready"}),
    "a pinned version stays so": (V("plato-v2", state="Deployed"), {"notes": ""}, {"serving": {}, "notes": ""}),
}


@pytest.mark.parametrize("case", LOADS)
async def test_what_a_load_patches(case: str) -> None:
    version, members, spec = LOADS[case]
    cluster = FakeCluster([version])
    answer = await loaded([version], {"model": "plato-v2"} | members, cluster)
    assert cluster.patches == [("finetune/plato-v2", spec)]
    assert answer["id"] == "plato-v2"


GENERATIONS: dict[str, tuple[dict[str, Any], int, int, bool, str | None]] = {
    "nothing has changed": (V("plato-v2"), 3, 3, True, None),
    "the operator has yet to look": (V("plato-v2"), 4, 3, False, "the operator has not acted upon it yet"),
    "it is on its way": (V("plato-v2", loaded=False, message="loading"), 3, 3, False, "loading"),
}


@pytest.mark.parametrize("case", GENERATIONS)
async def test_a_load_is_done_when_the_operator_has_seen_it(case: str) -> None:
    version, generation, observed, is_done, message = GENERATIONS[case]
    version = merged(version, {"metadata": {"generation": generation}, "status": {"observedGeneration": observed}})
    answer = await loaded([version], {"model": "plato-v2"})
    assert (answer["finetune"]["loaded"], answer["finetune"]["message"]) == (is_done, message)


async def test_a_load_of_what_nobody_knows() -> None:
    with pytest.raises(GatewayError, match="the model `plato` does not exist; models: plato-v1, plato-v2"):
        await loaded([V1, V2], {"model": "plato"})


REFUSALS: dict[int | None, tuple[int, str, str]] = {
    401: (401, "invalid_api_key", "kubectl create token <service account>"),
    403: (403, "permission_denied", "have `patch` on modelversions.finetune.dev granted in finetune"),
    404: (404, "model_not_found", "plato-v2 has been deleted"),
    409: (409, "conflict", "plato-v2: told to fail; ask again"),
    422: (422, "invalid_change", "plato-v2: told to fail"),
    429: (503, "api_server_unavailable", "asking again is safe"),
    500: (503, "api_server_unavailable", "asking again is safe"),
    None: (503, "api_server_unavailable", "asking again is safe"),
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_what_the_api_server_refuses(status: int | None) -> None:
    failure = error_for(status, "told to fail") if status else KubeError("told to fail")
    with pytest.raises(GatewayError) as caught:
        await loaded([V1, V2], {"model": "plato-v2"}, FakeCluster([V1, V2], {"plato-v2": failure}))
    answered, code, words = REFUSALS[status]
    assert (caught.value.status, caught.value.code) == (answered, code)
    assert words in caught.value.message
    assert (caught.value.retry_after_seconds is not None) is (answered == 503)


BAD_ORDERS: dict[str, tuple[type[Switch] | type[Load], bytes, str | None]] = {
    "not JSON": (Switch, b"plato", None),
    "no object": (Switch, b"[]", None),
    "no version": (Switch, b'{"model": "plato"}', "version"),
    "a version that is none": (Switch, b'{"model": "plato", "version": true}', "version"),
    "a typing error": (Load, b'{"model": "plato-v2", "max_model_length": 8}', "max_model_length"),
    "more memory than there is": (
        Load,
        b'{"model": "plato-v2", "gpu_memory_utilization": 1.5}',
        "gpu_memory_utilization",
    ),
    "a number of many digits": (
        Load,
        b'{"model": "plato-v2", "gpu_memory_utilization": "1e-100000000"}',
        "gpu_memory_utilization",
    ),
}


@pytest.mark.parametrize("case", BAD_ORDERS)
def test_bodies_that_say_nothing_clear(case: str) -> None:
    kind, raw, param = BAD_ORDERS[case]
    with pytest.raises(GatewayError, match="the body has model, ") as caught:
        parse_order(kind, raw)
    assert (caught.value.status, caught.value.param) == (400, param)


async def ask(world: World, path: str, token: str | None, **members: Any) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with world.post(path, json=members, headers=headers) as response:
        return response.status, await response.json()


async def test_the_callers_token_goes_to_the_api_server_and_the_alias_follows(world: World) -> None:
    async with world.gateway(tokens=("a token for chats",)):
        status, body = await ask(world, "/v1/models/switch", "a Kubernetes token", model="plato", version=2)
        assert (status, body["id"], body["finetune"]["loaded"]) == (200, "plato-v2", True)
        assert world.kubernetes.patched_by == ["Bearer a Kubernetes token"]

        async def has_followed() -> bool:
            headers = {"Authorization": "Bearer a token for chats"}
            async with world.session.get(f"{world.url}/v1/models/active", headers=headers) as response:
                return bool((await response.json())["data"][0]["root"] == "plato-v2")

        await eventually(has_followed)


async def test_what_is_yet_to_be_loaded_is_accepted(world: World) -> None:
    world.put(world.version("plato-v3", loaded=False, serving=False))
    async with world.gateway():
        status, body = await ask(world, "/v1/models/load", "a token", model="plato-v3", max_model_len=512)
    assert (status, body["finetune"]["loaded"]) == (202, False)


CHANGES: dict[str, dict[str, Any]] = {
    "/v1/models/switch": {"model": "plato", "version": 2},
    "/v1/models/load": {"model": "plato-v2"},
}


@pytest.mark.parametrize("path", CHANGES)
async def test_a_change_is_remembered_as_the_callers(world: World, path: str) -> None:
    async with world.gateway():
        assert (await ask(world, path, "ada", **CHANGES[path]))[0] < 300
    assert world.kubernetes.managers == ["ada (finetune-gateway)"]


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_a_caller_whose_name_is_not_told_can_still_roll_back(world: World, status: int) -> None:
    world.kubernetes.review_failures = [status]
    async with world.gateway():
        assert (await ask(world, "/v1/models/switch", "ada", model="plato", version=2))[0] == 200
    assert world.kubernetes.managers == ["finetune-gateway"]


@pytest.mark.parametrize("token", [None, "café"])
async def test_without_a_token_nothing_is_asked_of_the_api_server(world: World, token: str | None) -> None:
    async with world.gateway():
        status, body = await ask(world, "/v1/models/switch", token, model="plato", version=2)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert "kubectl create token" in body["error"]["message"]
    assert world.kubernetes.patched_by == []


async def test_a_token_for_chats_changes_nothing(world: World) -> None:
    world.kubernetes.unknown_tokens = {"for-chats"}
    async with world.gateway(tokens=("for-chats",)):
        status, body = await ask(world, "/v1/models/switch", "for-chats", model="plato", version=2)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_a_bad_order_is_refused_as_openai_would(world: World) -> None:
    async with world.gateway():
        status, body = await ask(world, "/v1/models/load", "a token", model="plato-v2", speed="high")
    assert (status, body["error"]["param"]) == (400, "speed")
