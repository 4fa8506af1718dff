"""How the operator tells the api of an evaluation: until it is acknowledged, and not in everybody's way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import test_utils, web

from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from finetune_operator.shell.api import Api
from tests.builders import NOON

ROW = RecordedEvaluation(
    source=EvaluationSource.SERVED,
    namespace="finetune",
    model_version="plato-v1",
    model="plato",
    base_model="tiny",
    measured_at=NOON,
    values=(RecordedValue(name="RougeL", base=0.1, fine_tuned=0.2),),
)


@asynccontextmanager
async def api_answering(status: int) -> AsyncIterator[tuple[Api, list[tuple[str, RecordedEvaluation]]]]:
    told: list[tuple[str, RecordedEvaluation]] = []

    async def put(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer token"
        told.append((request.match_info["id"], RecordedEvaluation.model_validate_json(await request.text())))
        return web.Response(status=status)

    application = web.Application()
    application.router.add_put("/internal/v1/evaluations/{id}", put)
    async with test_utils.TestServer(application) as server, aiohttp.ClientSession() as session:
        yield Api(session, str(server.make_url("")).rstrip("/"), "token"), told


async def test_what_is_acknowledged_is_remembered() -> None:
    async with api_answering(204) as (api, told):
        await api.record("e1", ROW)
    assert (api.recorded, told) == ({"e1": NOON}, [("e1", ROW)])


@pytest.mark.parametrize(("status", "requests"), [(500, 1), (422, 2)], ids=["away: not asked for a while", "refused"])
async def test_what_is_not_acknowledged_is_to_be_told_again(status: int, requests: int) -> None:
    async with api_answering(status) as (api, told):
        await api.record("e1", ROW)
        await api.record("e2", ROW)
    assert api.recorded == {}
    assert len(told) == requests


async def test_without_an_api_nothing_happens() -> None:
    async with aiohttp.ClientSession() as session:
        api = Api(session, None, "")
        await api.record("e1", ROW)
    assert api.recorded == {}
