"""Sums and returns that the api computes: a played api with the members that it has."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.cli.failures import ExitCode
from tests.unit.cli.conftest import Ftctl
from tests.unit.cli.played_cluster import PlayedCluster

SUMMARY = {
    "totals": [{"currency": "USD", "training": 12.5, "inference": 0.75}],
    "trainings": 3,
    "trainings_without_price": 1,
    "versions": 2,
    "versions_without_price": 0,
    "calls": 1200,
    "calls_without_tokens": 7,
}
ROI = {
    "id": "finetune.plato-v2",
    "currency": "USD",
    "verdict": "pays after 8 days",
    "inputs": {"value_per_error_saved": {"value": 10, "origin": "default", "source": "default"}},
    "missing": ["base_error_rate"],
    "net_value": 1234.5,
    "payback_days": None,
}
PRICED = {
    "id": "finetune.plato-v2", "model": "plato", "currency": "USD", "total": 0.75, "calls": 1200,
    "calls_with_tokens": 1193, "unknown": None,
}  # fmt: skip
UNPRICED = {
    "id": "finetune.plato-v1", "model": "plato", "currency": None, "total": None, "calls": 5, "calls_with_tokens": 0,
    "unknown": "no price for cpu: set prices.perHour.cpu",
}  # fmt: skip
GONE = {
    "id": "finetune.plato-0", "model": "plato", "currency": "USD", "spent": 4.5, "deleted_at": "2026-11-22T12:00:00Z",
}  # fmt: skip
UNPRICED_GONE = GONE | {"id": "finetune.plato-9", "currency": None, "spent": None}
THERE = GONE | {"id": "finetune.plato-1", "deleted_at": None}
JOBS = (
    {"jobs": [GONE], "total": 2, "has_more": True, "next": "a-uid"},
    {"jobs": [UNPRICED_GONE], "total": 2, "has_more": False, "next": None},
)
MODELS = (
    {"models": [PRICED], "total": 2, "has_more": True, "next": "finetune.plato-v2"},
    {"models": [UNPRICED], "total": 2, "has_more": False, "next": None},
)
GONE_VERSIONS = [
    PRICED | {"id": "finetune.plato-v0", "total": 0.5, "calls": 3, "calls_with_tokens": 3, "deleted_at": "2026-11-22"},
    UNPRICED | {"id": "finetune.plato-v9", "calls": 0, "deleted_at": "2026-11-22"},
]
GONE_MODELS = {"models": GONE_VERSIONS, "total": 2, "has_more": False, "next": None}


@pytest.fixture
async def api() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Its address, and what it was asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        after = "after" in request.query
        models = GONE_MODELS if "deleted" in request.query else MODELS[after]
        bodies: dict[str, Any] = {"roi": ROI, "models": models, "jobs": JOBS[after], "costs": SUMMARY}
        return web.json_response(bodies[request.path.rpartition("/")[2]])

    app = web.Application()
    app.router.add_get("/v1/fine-tuning/costs", answer)
    app.router.add_get("/v1/fine-tuning/costs/roi", answer)
    app.router.add_get("/v1/fine-tuning/costs/models", answer)
    app.router.add_get("/v1/fine-tuning/costs/jobs", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_sums_of_trainings_and_answers(ftctl: Ftctl, api: tuple[str, list[dict[str, str]]]) -> None:
    ended = await ftctl("cost-summary", "--totals", "--server", api[0], "-n", "finetune")
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert [line.split() for line in ended.lines[:2]] == [["CURRENCY", "TRAININGS", "ANSWERS"], ["USD", "12.5", "0.75"]]
    assert "1 of them without a price, and in no sum" in ended.out
    assert api[1] == [{"namespace": "finetune"}]


async def test_the_summary_has_trainings_and_answers(
    ftctl: Ftctl, cluster: PlayedCluster, api: tuple[str, list[dict[str, str]]]
) -> None:
    ended = await ftctl("cost-summary", "--server", api[0])
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert "2.00 USD spent on 2 trainings" in ended.out
    rows = [line.split() for line in ended.lines]
    assert ["VERSION", "MODEL", "CALLS", "ANSWERS"] in rows
    assert ["finetune.plato-v2", "plato", "1200", "0.75", "USD"] in rows
    assert ["finetune.plato-v1", "plato", "5", "unknown"] in rows
    assert ["finetune.plato-v0", "(deleted)", "plato", "3", "0.5", "USD"] in rows
    assert "1.25 USD spent on answers" in ended.out
    assert [query.get("namespace") for query in api[1]] == ["finetune"] * 5, "as the trainings'"
    assert "4.5 USD spent on 1 deleted training" in ended.out
    assert "1 of 2 deleted trainings unknown, and in no sum" in ended.out
    assert "answers of 1 of 3 versions unknown, and in no sum: no price for cpu: set prices.perHour.cpu" in ended.out


async def test_the_summary_for_machines_has_null_for_what_is_unknown(
    ftctl: Ftctl, cluster: PlayedCluster, api: tuple[str, list[dict[str, str]]]
) -> None:
    told = json.loads((await ftctl("cost-summary", "--server", api[0], "-o", "json")).out)
    assert (told["totals"], told["answers"]["totals"]) == ({"USD": "2.00"}, {"USD": "1.25"})
    assert [each["spent"] for each in told["answers"]["versions"]] == ["0.75", None, "0.5"]
    assert [each["spent"] for each in told["deleted"]["jobs"]] == ["4.5", None]
    assert (told["deleted"]["totals"], told["deleted"]["unknown"]) == ({"USD": "4.5"}, 1)
    assert told["answers"]["unknown"] == 1
    without_api = json.loads((await ftctl("cost-summary", "--server", "http://127.0.0.1:1", "-o", "json")).out)
    assert (without_api["totals"], without_api["answers"]) == ({"USD": "2.00"}, None)
    assert "does not answer" in without_api["answers_unknown"]
    assert without_api["deleted"] is None
    assert "does not answer" in without_api["deleted_unknown"]


async def test_an_older_api_knows_nothing_deleted(
    ftctl: Ftctl, cluster: PlayedCluster, api: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"jobs": [THERE], "total": 600, "has_more": True, "next": "finetune.plato-1"}
    monkeypatch.setattr("tests.unit.cli.test_costs_by_api.JOBS", (older, older))
    there = {"models": [PRICED], "total": 600, "has_more": True, "next": "finetune.plato-v2"}
    monkeypatch.setattr("tests.unit.cli.test_costs_by_api.GONE_MODELS", there)
    assert "deleted" not in (await ftctl("cost-summary", "--server", api[0])).out


async def test_whether_a_version_pays(ftctl: Ftctl, api: tuple[str, list[dict[str, str]]]) -> None:
    ended = await ftctl("cost", "--roi", "plato-v2", "--value-per-error", "5", "--server", api[0], "-n", "finetune")
    assert (ended.code, ended.err) == (ExitCode.DONE, "")
    assert ended.lines[0] == "finetune.plato-v2: pays after 8 days"
    assert "1,234.5" in ended.out
    assert "unknown: base_error_rate" in ended.out
    assert "days until it has paid" not in ended.out, "unknown is not 0"
    assert api[1] == [{"value_per_error_saved": "5", "version": "finetune.plato-v2"}]


async def test_a_value_without_a_version(ftctl: Ftctl) -> None:
    assert (await ftctl("cost", "--value-per-error", "5")).code == ExitCode.USAGE
