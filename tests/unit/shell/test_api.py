"""What the operator tells the api and asks of it: never in the way of all else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import test_utils, web

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from finetune_operator.shell import api as shell_api
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


@asynccontextmanager
async def api_with_ratings(*answers: web.Response) -> AsyncIterator[tuple[Api, list[str]]]:
    """Each answer once, the last one from then on; the list has the versions that were asked for."""
    asked: list[str] = []

    async def get(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer token"
        asked.append(request.match_info["uid"])
        found = answers[min(len(asked), len(answers)) - 1]
        return web.Response(status=found.status, text=found.text)

    application = web.Application()
    application.router.add_get("/internal/v1/versions/{uid}/ratings", get)
    async with test_utils.TestServer(application) as server, aiohttp.ClientSession() as session:
        yield Api(session, str(server.make_url("")).rstrip("/"), "token"), asked


RATED, RATED_AGAIN = (web.Response(text=text) for text in ('{"answers": {"5": 2}}', '{"answers": {"5": 3}}'))


async def test_ratings_are_asked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_with_ratings(RATED, RATED_AGAIN) as (api, asked):
        first = [await api.ratings("v1") for _ in range(3)]
        assert first == [RatingTally(answers={5: 2})] * 3
        assert await api.ratings("v2") == RatingTally(answers={5: 3})
        monkeypatch.setattr(shell_api, "RATINGS_SECONDS", 0.0)
        assert await api.ratings("v1") == RatingTally(answers={5: 3})
    assert asked == ["v1", "v2", "v1"]


@pytest.mark.parametrize(
    "answer", [web.Response(status=500), web.Response(text="no ratings")], ids=["fails", "babbles"]
)
async def test_without_an_answer_there_is_no_news_of_ratings(answer: web.Response) -> None:
    async with api_with_ratings(answer) as (api, asked):
        assert [await api.ratings("v1") for _ in range(3)] == [None] * 3
    assert asked == ["v1"], "not once for each reconcile"


async def test_no_version_waits_for_an_api_that_has_just_been_away() -> None:
    async with api_with_ratings(RATED) as (api, asked):
        url, api._url = api._url, "http://127.0.0.1:9"
        assert await api.ratings("v1") is None
        api._url = url
        assert await api.ratings("v1") is None
    assert asked == []
