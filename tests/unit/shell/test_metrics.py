"""What Prometheus reads from the operator."""

import aiohttp

from finetune_operator.shell.metrics import GAUGES, metrics_server
from finetune_operator.shell.state import ClusterState
from tests.builders import job_object, version_object

COST = {"currency": "USD", "base": "1", "fineTuned": "2.5"}


async def test_costs_are_those_of_the_moment() -> None:
    state = ClusterState()
    async with aiohttp.ClientSession() as session, metrics_server(state, ("finetune",), "127.0.0.1", 0) as port:

        async def text() -> str:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                assert response.status == 200
                return await response.text()

        empty = await text()
        assert all(f"# HELP {name} " in empty for _, name, _, _ in GAUGES)
        cost = {"currency": "USD", "spent": "12.50"}
        state.see("finetunejobs", job_object(status={"phase": "Training", "cost": cost}))
        evaluation = {"costPerMillionTokens": COST}
        state.see("modelversions", version_object(1, status={"engine": "vllm-a", "evaluation": evaluation}))
        found = await text()
        state.forget("finetunejobs", job_object(status={"phase": "Training"}))
        state.see("finetunejobs", job_object(uid="its successor", status={"phase": "Training", "cost": cost}))
        after = await text()
    assert 'finetune_training_cost{currency="USD",model="plato",namespace="finetune"} 25.0' in after, "spent is spent"
    assert 'finetune_trainings{namespace="finetune",phase="Training"} 1.0' in after
    assert 'finetune_training_cost{currency="USD",model="plato",namespace="finetune"} 12.5' in found
    assert 'finetune_trainings{namespace="finetune",phase="Training"} 1.0' in found
    labels = 'currency="USD",namespace="finetune",served_name="plato-v1"'
    assert f"finetune_model_version_cost_per_million_tokens{{{labels}}} 2.5" in found
