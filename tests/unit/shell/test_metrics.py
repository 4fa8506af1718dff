"""What Prometheus reads from the operator."""

import asyncio
import threading

import aiohttp
import pytest

from finetune_operator.core.cost_series import CostSeries, cost_series
from finetune_operator.shell import metrics
from finetune_operator.shell.metrics import GAUGES, CostCollector, metrics_server
from finetune_operator.shell.state import ClusterState
from tests.builders import job_object, version_object
from tests.waiting import eventually

DEADLINE_SECONDS = 30
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


def test_objects_are_kept_no_longer_than_they_are_counted() -> None:
    state = ClusterState()
    state.see("finetunejobs", job_object(status={"phase": "Training"}))
    costs = CostCollector(state, ("finetune",))

    def trainings() -> list[float]:
        (gauge,) = (each for each in costs.collect() if each.name == "finetune_trainings")
        return [sample.value for sample in gauge.samples]

    costs.look()
    assert trainings() == [1]
    assert trainings() == []


async def test_the_event_loop_goes_on_while_many_trainings_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    is_counting, may_end = threading.Event(), threading.Event()

    def slow(*_: object) -> CostSeries:
        is_counting.set()
        assert may_end.wait(DEADLINE_SECONDS)
        return cost_series((), ())

    monkeypatch.setattr(metrics, "cost_series", slow)
    async with (
        aiohttp.ClientSession() as session,
        metrics_server(ClusterState(), ("finetune",), "127.0.0.1", 0) as port,
    ):
        scrape = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/metrics"))
        await eventually(is_counting.is_set)
        assert not scrape.done()
        may_end.set()
        assert (await scrape).status == 200
