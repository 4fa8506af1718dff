"""Trainings at a provider from rows to a model: what it is sent, and what becomes of its answers."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from finetune_operator.contract.training import Progress, ProgressBatch
from tests.unit.providers.openai_server import OpenAIServer
from tests.unit.providers.pods import MODEL, UID, RemoteJobDirectory, training_config


@dataclass
class Api:
    """The api process as a trainer sees it."""

    url: str = ""
    points: list[Progress] = field(default_factory=list)
    refuses: int = 0


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()

    async def post(request: web.Request) -> web.Response:
        if api.refuses:
            api.refuses -= 1
            return web.Response(status=503)
        api.points.extend(ProgressBatch.model_validate_json(await request.read()).points)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/progress/batch", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/progress"  # type: ignore[union-attr]
    yield api
    await runner.cleanup()


async def test_a_training_from_rows_to_a_model(openai_server: OpenAIServer, tmp_path: Path, api: Api) -> None:
    config = training_config(openai_server, learning_rate_multiplier=0.5, price_per_million_tokens="5.00")
    job = RemoteJobDirectory(tmp_path, config.model_copy(update={"progress_url": api.url}))
    api.refuses = 1

    pod = await job.start()
    ending = await pod.ended()

    assert ending.exit_code == 0, pod.log
    (created,) = openai_server.created
    assert created["model"] == MODEL
    assert created["suffix"] == "plato"
    assert created["seed"] == 42
    assert created["metadata"] == {"finetune_job_uid": UID, "finetune_job": "finetune/plato-1"}
    assert created["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 0.5}},
    }
    sent = openai_server.contents[created["training_file"]].splitlines()
    assert [json.loads(line) for line in sent] == job.train_rows
    assert len(openai_server.contents[created["validation_file"]].splitlines()) == 2
    result = ending.result
    assert result.remote
    assert result.remote.model in openai_server.models
    assert (result.remote.base_url, result.adapter_digest) == (openai_server.base_url, None)
    assert (result.tokens, result.remote.cost) == (1500, Decimal("0.0075"))
    assert (result.steps, result.final_loss, result.best_loss) == (30, 1.0, 1.0)
    assert result.test_loss == pytest.approx(2.5 / 3)
    assert result.train_seconds == 321
    assert [point.step for point in api.points] == list(range(1, 31))
    assert api.points[14].model_copy(update={"time": None, "eta_seconds": 0}) == Progress.model_construct(
        job=job.config.job,
        attempt="plato-1-abcde",
        step=15,
        total_steps=30,
        epoch=1.5,
        total_epochs=3.0,
        loss=2.0,
        eta_seconds=0,
        time=None,
    )
    assert "Step 30/30: training loss=1.00" in pod.log
    assert '"cost": "0.0' in pod.log
    assert openai_server.files == {}, "the training data leave with the training"


async def test_preferences_go_in_the_providers_own_form(openai_server: OpenAIServer, tmp_path: Path) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server, "DPO"))

    pod = await job.run()

    assert pod.exit_code == 0
    (created,) = openai_server.created
    assert created["method"] == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": 2, "beta": 0.1}},
    }
    assert json.loads(openai_server.contents[created["training_file"]].splitlines()[0]) == {
        "input": {"messages": [{"role": "user", "content": "Question 0"}]},
        "preferred_output": [{"role": "assistant", "content": "Good"}],
        "non_preferred_output": [{"role": "assistant", "content": "Bad"}],
    }


async def test_without_held_out_rows_nothing_is_validated(openai_server: OpenAIServer, tmp_path: Path) -> None:
    ending = await RemoteJobDirectory(tmp_path, training_config(openai_server), test_rows=0).run()

    assert ending.exit_code == 0
    (created,) = openai_server.created
    assert "validation_file" not in created
    assert len(openai_server.contents) == 1


async def test_a_model_without_a_price_costs_nobody_knows_what(openai_server: OpenAIServer, tmp_path: Path) -> None:
    ending = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run()

    assert ending.result.remote
    assert (ending.result.remote.trained_tokens, ending.result.remote.cost) == (1500, None)
