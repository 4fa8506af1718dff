"""REST on a real API server: real tokens, real RBAC, the real schema of what is made."""

from pathlib import Path

import pytest
from openai import AsyncOpenAI, PermissionDeniedError

from tests.cluster.rest_api import API_TOKEN, RestApi, rest_api, token_with
from tests.cluster.world import World
from tests.waiting import eventually

JOBS = "/v1/fine-tuning/jobs"
FLAT = {"model": "plato", "base_model": "volume://models/tiny-llama", "quantization": "none", "num_epochs": 1}


async def may(api: RestApi, token: str, path: str) -> None:
    """Once the ClusterRoles are aggregated."""

    async def answered() -> bool:
        status, body = await api.ask("GET", path, token)
        assert status == 200, body
        return True

    await eventually(answered)


async def test_a_job_by_rest_is_one_by_yaml(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await token_with(world, "editor", "edit")
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        status, made = await api.ask("POST", JOBS, editor, FLAT, Idempotency_Key="once")
        assert status == 201, made
        status, again = await api.ask("POST", JOBS, editor, FLAT, Idempotency_Key="once")
        assert (status, again["uid"]) == (200, made["uid"])
        assert made["manifest"]["spec"]["training"]["learningRate"] == "2e-4", "a default of the schema"
        manifest = made["manifest"] | {"metadata": {"name": "by-yaml", "namespace": world.namespace}}
        by_yaml = await world.create(manifest)
        assert by_yaml["spec"] == made["manifest"]["spec"]
        stored = await world.get("finetunejobs", made["name"])
        managers = {entry["manager"] for entry in stored["metadata"]["managedFields"]}
        assert managers == {written_by(world, "editor")}

        status, listed = await api.ask("GET", f"{JOBS}?limit=1", editor)
        assert (status, listed["total"], listed["has_more"]) == (200, 2, True)
        status, body = await api.ask("POST", f"{JOBS}/{made['id']}/suspend", editor)
        assert (status, body["suspended"]) == (200, True)
        status, body = await api.ask("POST", f"{JOBS}/{made['id']}/resume", editor)
        assert (status, body["suspended"]) == (200, False)
        status, body = await api.ask("POST", f"{JOBS}/{made['id']}/cancel", editor)
        assert (status, body["cancelled"]) == (200, True)
        assert (await api.ask("DELETE", f"{JOBS}/{made['id']}", editor))[0] == 204
        await world.gone("finetunejobs", made["name"])


async def test_what_the_api_server_refuses_is_told(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await token_with(world, "editor", "edit")
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        for body, words in (
            (FLAT | {"lora_r": 0}, "spec.lora.r"),
            (FLAT | {"backend": "openai", "base_model": "gpt"}, "spec.openai goes with backend OpenAI"),
            ({"spec": {"model": "plato", "epochs": 3}}, 'unknown field "spec.epochs"'),
        ):
            status, problem = await api.ask("POST", JOBS, editor, body)
            assert (status, problem["type"]) == (422, "urn:finetune-operator:problem:invalid-request"), problem
            assert words in problem["detail"]
    assert await world.names("finetunejobs") == []


async def test_rbac_decides(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    nobody = await token_with(world, "nobody")
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        await may(api, reader, JOBS)
        _, made = await api.ask("POST", JOBS, editor, FLAT)
        one = f"{JOBS}/{made['id']}"
        for token, method, path, body, expected in (
            (reader, "GET", one, None, 200),
            (reader, "POST", JOBS, FLAT, 403),
            (reader, "POST", f"{one}/cancel", None, 403),
            (reader, "DELETE", one, None, 403),
            (nobody, "GET", JOBS, None, 403),
            (nobody, "GET", one, None, 403),
            (API_TOKEN, "GET", JOBS, None, 403),
            (API_TOKEN, "POST", JOBS, FLAT, 403),
            ("not.a.token", "GET", JOBS, None, 401),
        ):
            status, problem = await api.ask(method, path, token, body)
            assert status == expected, (method, path, problem)
        for token, expected in ((editor, 200), (reader, 403), (nobody, 403), (API_TOKEN, 200)):
            feedback = {"request_id": f"request-{expected}", "thumbs": "up"}
            status, problem = await api.ask("POST", "/v1/fine-tuning/feedback", token, feedback)
            assert status == expected, problem
    assert await world.names("finetunejobs") == [made["name"]]


async def test_costs_and_budgets_are_those_of_the_callers_rights(world: World, tmp_path: Path) -> None:
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    costs = "/v1/fine-tuning/costs"
    job, pod = await world.train(resources={"limits": {"nvidia.com/gpu": 1}})
    await world.kubelet.succeed(pod)
    done = await world.reaches("finetunejobs", "plato-1", phase="Succeeded")
    async with rest_api(world, tmp_path) as api:
        await may(api, reader, costs)
        await may(api, editor, costs)
        _, found = await api.ask("GET", f"{costs}/jobs", reader)
        (training,) = found["jobs"]
        assert training["spent"] == float(done["status"]["cost"]["spent"])
        assert training["basis"] == done["status"]["cost"]["basis"]
        _, body = await api.ask("GET", costs, reader)
        assert body["totals"] == [{"currency": "USD", "training": training["spent"], "inference": 0.0}]
        version = done["status"]["modelVersion"]
        _, report = await api.ask("GET", f"{costs}/roi?version={version}&calls_per_day=7", reader)
        assert report["inputs"]["training_cost"]["value"] == training["spent"]
        assert "error_rate" in report["missing"]
        assert (await api.ask("GET", costs, API_TOKEN))[0] == 403

        _, made = await api.ask("POST", JOBS, editor, FLAT | {"max_cost": "2.50"})
        assert made["manifest"]["spec"]["budget"] == {"maxCost": "2.5", "currency": "USD"}
        budget = f"{JOBS}/{made['id']}/budget"
        assert (await api.ask("PUT", budget, reader, {"max_cost": 3}))[0] == 403
        status, raised = await api.ask("PUT", budget, editor, {"max_cost": 3})
        assert (status, raised["budget"]["max_cost"]) == (200, 3.0)
        status, gone = await api.ask("PUT", budget, editor, {"max_cost": None})
        assert (status, gone["budget"]) == (200, None)
        status, ended = await api.ask("PUT", f"{JOBS}/{job['metadata']['name']}/budget", editor, {"max_cost": 3})
        assert (status, ended["type"].rsplit(":", 1)[1]) == (409, "finished")


async def test_versions_are_deployed_and_rolled_back(world: World, tmp_path: Path) -> None:
    await world.serve("plato-v1", "plato-v2")
    editor = await token_with(world, "editor", "edit")
    reader = await token_with(world, "reader", "view")
    models = "/v1/fine-tuning/models"
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, models)
        await may(api, reader, models)
        for version in ("plato-v1", "plato-v2"):
            status, body = await api.ask("POST", f"{models}/{world.namespace}.{version}/deploy", editor, {"notes": "x"})
            assert (status, body["requested_state"]) == (200, "Deployed"), body
            await world.reaches("modelversions", version, state="Deployed", observedState="Deployed")
        status, body = await api.ask("POST", f"{models}/plato-v2/rollback", reader)
        assert (status, body["type"].rsplit(":", 1)[1]) == (403, "forbidden")
        status, body = await api.ask("POST", f"{models}/plato-v2/rollback", editor)
        assert (status, body["name"]) == (200, "plato-v1"), body
        await world.reaches("modelversions", "plato-v1", state="Deployed")
        await world.reaches("modelversions", "plato-v2", state="Ready")
        for token in (reader, API_TOKEN):
            status, listed = await api.ask("GET", f"{models}?model=plato", token)
            assert [entry["name"] for entry in listed["models"] if entry["active"]] == ["plato-v1"]
    deployed = await world.get("modelversions", "plato-v2")
    assert written_by(world, "editor") in [entry.get("who") for entry in deployed["status"]["history"]]


def written_by(world: World, account: str) -> str:
    """As the objects remember whose decision it was."""
    return f"system:serviceaccount:{world.namespace}:{account} (finetune-api)"


async def test_a_test_by_rest_is_an_abtest(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await token_with(world, "editor", "edit")
    tests = "/v1/fine-tuning/ab-test"
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, tests)
        body = {"candidate": "plato-v2", "baseline": "plato-v1", "test_prompts": ["What is AI?"], "max_votes": 50}
        status, made = await api.ask("POST", tests, editor, body)
        assert status == 201, made
        stored = await world.get("abtests", made["name"])
        assert stored["spec"] == made["manifest"]["spec"]
        assert (stored["spec"]["model"], stored["spec"]["decision"]["maxVotes"]) == ("plato", 50)
        status, body = await api.ask("POST", tests, editor, body | {"baseline": "plato-v2"})
        assert (status, "different versions" in body["detail"]) == (422, True), body


async def test_a_training_is_followed_by_the_callers_rights(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    async with rest_api(world, tmp_path) as api:
        await may(api, editor, JOBS)
        await may(api, reader, JOBS)
        _, made = await api.ask("POST", JOBS, editor, FLAT)
        headers = {"Authorization": f"Bearer {reader}", "Accept": "text/event-stream"}
        async with api.session.get(f"{api.url}{JOBS}/{made['id']}/events", headers=headers) as stream:
            assert stream.status == 200
            assert await stream.content.readline() == b"event: status\n"
            for phase in ("Training", "Succeeded"):
                status = {"status": {"phase": phase}}
                await world.client.merge_patch("finetunejobs", world.namespace, made["name"], status, "status")
            rest = (await stream.content.read()).decode()
        names = [line.removeprefix("event: ") for line in rest.splitlines() if line.startswith("event: ")]
        assert names == ["status", "end"]
        last = [line.removeprefix("id: ") for line in rest.splitlines() if line.startswith("id: ")][-1]
        status, _ = await api.ask("GET", f"{JOBS}/{made['id']}/events", reader, None, **headers, Last_Event_ID=last)
        assert status == 204


async def test_openais_client_makes_the_same_job(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    async with rest_api(world, tmp_path) as api, AsyncOpenAI(base_url=f"{api.url}/v1", api_key=editor) as client:
        await may(api, editor, JOBS)
        await may(api, reader, JOBS)
        made = await client.fine_tuning.jobs.create(
            model="volume://models/tiny-llama", training_file="ratings", suffix="plato", metadata={"team": "ethics"}
        )
        _, body = await api.ask("GET", f"{JOBS}/{made.id.removeprefix('ftjob-')}", reader)
        assert body["model"] == "plato"
        stored = await world.get("finetunejobs", body["name"])
        assert stored["spec"] == body["manifest"]["spec"]
        assert (await client.fine_tuning.jobs.retrieve(made.id)).metadata == {"team": "ethics"}
        assert [job.id async for job in client.fine_tuning.jobs.list()] == [made.id]
        await client.fine_tuning.jobs.pause(made.id)
        assert (await world.get("finetunejobs", body["name"]))["spec"]["suspend"] is True
        with pytest.raises(PermissionDeniedError, match="cannot patch"):
            await client.with_options(api_key=reader).fine_tuning.jobs.cancel(made.id)
        await client.fine_tuning.jobs.cancel(made.id)
        assert (await world.get("finetunejobs", body["name"]))["spec"]["cancel"] is True
