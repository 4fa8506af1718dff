"""What the client makes of a provider whose lists have no end, and of one that asks for more time than there is."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from finetune_operator.providers.fine_tuning_client import RETRY_AFTER_MAX_SECONDS, FineTuningClient, Unanswered

PAGES = {None: ["1", "2"], "2": ["3", "4"]}


@pytest.fixture
async def careless_server() -> AsyncIterator[str]:
    """Says of every page that there is another, and begins anew once there is none; is busy for jobs' ids."""

    async def page(request: web.Request) -> web.Response:
        ids = PAGES.get(request.query.get("after"), PAGES[None])
        return web.json_response({"data": [{"id": each, "filename": each} for each in ids], "has_more": True})

    async def busy(request: web.Request) -> web.Response:
        headers = {"Retry-After": request.match_info["id"]}
        return web.json_response({"error": {"message": "busy"}}, status=429, headers=headers)

    app = web.Application()
    app.add_routes([web.get("/files", page), web.get("/fine_tuning/jobs/{id}", busy)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    await runner.cleanup()


@pytest.mark.timeout(20)
async def test_a_list_that_repeats_itself_ends(careless_server: str) -> None:
    async with FineTuningClient.open(careless_server, "key") as client:
        found = [file.id async for file in client.files()]

    assert found == ["1", "2", "3", "4", "1", "2"]


@pytest.mark.parametrize(
    ("named", "seconds"),
    [
        ("7", 7.0),
        ("99999999", RETRY_AFTER_MAX_SECONDS),
        ("9" * 400, RETRY_AFTER_MAX_SECONDS),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("%C2%B2", None),
    ],
    ids=["seconds", "years", "beyond any number", "a date", "a digit that is no number"],
)
async def test_a_provider_is_asked_again_before_long(careless_server: str, named: str, seconds: float | None) -> None:
    async with FineTuningClient.open(careless_server, "key") as client:
        with pytest.raises(Unanswered) as raised:
            await client.job(named)

    assert raised.value.retry_after_seconds == seconds
