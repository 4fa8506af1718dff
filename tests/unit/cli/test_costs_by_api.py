"""Sums and returns that the api computes: a played api with the members that it has."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.cli.failures import ExitCode
from tests.unit.cli.conftest import Ftctl

SUMMARY = {
    "totals": [{"currency": "USD", "training": 12.5, "inference": 0.75}],
    "trainings": 3,
    "trainings_without_price": 1,
    "versions": 2,
    "versions_without_price": 0,
    "calls": 1200,
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


@pytest.fixture
async def api() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Its address, and what it was asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        body: Any = ROI if request.path.endswith("/roi") else SUMMARY
        return web.json_response(body)

    app = web.Application()
    app.router.add_get("/v1/fine-tuning/costs", answer)
    app.router.add_get("/v1/fine-tuning/costs/roi", answer)
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
