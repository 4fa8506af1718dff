"""API keys on a real API server: real TokenRequests by the chart's Role, and real RBAC on what they are used for."""

from datetime import timedelta
from pathlib import Path

import pytest
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError

from finetune_operator.store import api_keys
from tests.cluster.control_plane import KEY_ACCOUNT
from tests.cluster.rest_api import RestApi, rest_api, token_with
from tests.cluster.world import World
from tests.waiting import eventually

KEYS, JOBS = "/v1/api-keys", "/v1/fine-tuning/jobs"
WANTED = {"name": "nightly training", "service_account": KEY_ACCOUNT}
FLAT = {"model": "plato", "base_model": "volume://models/tiny-llama", "quantization": "none", "num_epochs": 1}


async def made(api: RestApi, editor: str) -> tuple[str, str]:
    """Id and key, once RBAC has seen the bindings."""
    found: list[tuple[str, str]] = []

    async def answered() -> bool:
        status, body = await api.ask("POST", KEYS, editor, WANTED)
        assert status == 201, body
        found.append((body["id"], body["key"]))
        return True

    await eventually(answered)
    return found[-1]


async def test_a_key_does_what_its_service_account_may(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    # Kubernetes' own ClusterRole `edit` has the right to make tokens of the namespace's ServiceAccounts.
    editor, reader = await token_with(world, "editor", "edit"), await token_with(world, "reader", "view")
    await token_with(world, KEY_ACCOUNT, "edit")
    async with rest_api(world, tmp_path) as api:
        key_id, key = await made(api, editor)
        status, problem = await api.ask("POST", KEYS, reader, WANTED)
        assert (status, problem["type"].rsplit(":", 1)[1]) == (403, "forbidden"), problem
        status, problem = await api.ask("POST", KEYS, editor, WANTED | {"service_account": "reader"})
        assert (status, problem["type"].rsplit(":", 1)[1]) == (403, "api-keys-not-configured"), problem

        async with AsyncOpenAI(base_url=f"{api.url}/v1", api_key=key, max_retries=0) as client:
            job = await client.fine_tuning.jobs.create(
                model="volume://models/tiny-llama", training_file="ratings", extra_body={"namespace": world.namespace}
            )
            assert (await client.fine_tuning.jobs.retrieve(job.id)).id == job.id
            # A right that is taken away is gone with the next request to the API server.
            await world.plane.kubectl("delete", "rolebinding", KEY_ACCOUNT, "-n", world.namespace)

            async def refused() -> bool:
                try:
                    await client.fine_tuning.jobs.retrieve(job.id)
                except PermissionDeniedError:
                    return True
                return False

            await eventually(refused)
            status, _ = await api.ask("DELETE", f"{KEYS}/{key_id}", reader)
            assert status == 403
            status, _ = await api.ask("DELETE", f"{KEYS}/{key_id}", editor)
            assert status == 204
            with pytest.raises(AuthenticationError, match="was revoked"):
                await client.fine_tuning.jobs.retrieve(job.id)


async def test_an_expired_key_and_a_lost_account(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await token_with(world, "editor", "edit")
    await token_with(world, KEY_ACCOUNT, "view")
    async with rest_api(world, tmp_path) as api:
        key_id, key = await made(api, editor)

        async def reads() -> bool:
            status, body = await api.ask("GET", JOBS, key)
            assert status == 200, body
            return True

        await eventually(reads)
        status, _ = await api.ask("POST", JOBS, key, FLAT)
        assert status == 403
        engine, record = api.services.engine, await api_keys.find(api.services.engine, key_id)
        assert record
        await world.plane.kubectl("delete", "serviceaccount", KEY_ACCOUNT, "-n", world.namespace)
        api.services.account_tokens.drop(key_id)
        status, problem = await api.ask("GET", JOBS, key)
        assert (status, problem["type"].rsplit(":", 1)[1]) == (403, "no-service-account"), problem
        async with engine.begin() as connection:
            past = record.created_at - timedelta(days=1)
            await connection.exec_driver_sql(
                "UPDATE api_keys SET expires_at = ?", (past.strftime("%Y-%m-%d %H:%M:%S"),)
            )
        status, problem = await api.ask("GET", JOBS, key)
        assert (status, "expired on" in problem["detail"]) == (401, True), problem
