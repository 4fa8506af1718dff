"""The stream of a page: which objects have changed, with the rights of who looks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from pydantic import SecretStr

from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import TOKEN_HOLDER, Caller
from finetune_operator.web.dashboard import live
from finetune_operator.web.dashboard.live import HELLO, Watched, changes
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.sights import NAMESPACE, progressing
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import VIEW, User


def told(what: str, name: str = "plato-train", kind: str = "finetunejobs") -> str:
    data = f'{{"kind": "{kind}", "id": "{NAMESPACE}.{name}", "what": "{what}"}}'
    return f"event: changed\ndata: {data}\n\n"


@asynccontextmanager
async def stream(rest: Rest) -> AsyncIterator[AsyncGenerator[str, None]]:
    acting = Acting(rest.services, Caller("editor", SecretStr("editor")))
    watched = [Watched(kind, NAMESPACE, await acting.moment(kind, NAMESPACE)) for kind in (JOBS, VERSIONS)]
    async with aclosing(changes(acting.resources, watched)) as texts:
        yield texts


async def test_it_begins_with_hello_and_tells_progress_from_all_else(sighted: Rest) -> None:
    cluster = sighted.cluster
    async with stream(sighted) as texts:
        assert await anext(texts) == HELLO
        await cluster.tell("finetunejobs", NAMESPACE, "plato-train", progress=progressing(50))
        assert await anext(texts) == told("state"), "what was not seen before may be anything"
        await cluster.tell("finetunejobs", NAMESPACE, "plato-train", progress=progressing(51))
        assert await anext(texts) == told("progress")
        await cluster.tell("finetunejobs", NAMESPACE, "plato-train", phase="Succeeded")
        assert await anext(texts) == told("state")
        await cluster.tell("modelversions", NAMESPACE, "plato-v1", replicas="0/1")
        assert await anext(texts) == told("state", "plato-v1", "modelversions")
        await cluster.remove("finetunejobs", NAMESPACE, "plato-wait")
        assert await anext(texts) == told("state", "plato-wait")


async def test_a_watch_that_breaks_ends_the_stream_so_that_the_page_comes_again(sighted: Rest) -> None:
    cluster = sighted.cluster
    cluster.compacted_until = 1_000_000
    async with stream(sighted) as texts:
        assert await anext(texts) == HELLO
        assert await anext(texts, None) is None


async def test_a_stream_that_nobody_reads_any_more_ends_though_news_wait(
    sighted: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_WAITING", 1)
    cluster = sighted.cluster
    async with stream(sighted) as texts:
        assert await anext(texts) == HELLO
        for step in range(5):
            await cluster.tell("finetunejobs", NAMESPACE, "plato-train", progress=progressing(50 + step))
            await cluster.tell("modelversions", NAMESPACE, "plato-v1", replicas=f"{step}/9")
        assert (await anext(texts)).startswith("event: changed")
        async with asyncio.timeout(5):
            await texts.aclose()


async def test_only_so_many_objects_are_remembered(sighted: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_REMEMBERED", 1)
    cluster = sighted.cluster
    async with stream(sighted) as texts:
        assert await anext(texts) == HELLO
        for name in ("plato-train", "plato-wait", "plato-train"):
            await cluster.tell("finetunejobs", NAMESPACE, name, progress=progressing(50))
            assert await anext(texts) == told("state", name), "what was forgotten may be anything"


async def test_the_apis_own_right_to_see_trainings_is_lent_to_nobody(sighted: Rest) -> None:
    holder = Browser(sighted, "public-token")
    async with asyncio.timeout(5):
        refused = await holder.get("/live?kinds=finetunejobs")
    assert refused.status_code == 403
    acting = Acting(sighted.services, Caller(TOKEN_HOLDER))
    watched = await live._watched(acting, (JOBS, VERSIONS), NAMESPACE)
    assert [each.kind for each in watched] == [VERSIONS], "the rest of a page goes on"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/live?kinds=secrets", 422),
        ("/live?kinds=", 422),
        ("/live?kinds=finetunejobs&namespace=elsewhere", 404),
    ],
)
async def test_what_can_not_be_watched_is_refused(editor: Browser, path: str, status: int) -> None:
    assert (await editor.get(path)).status_code == status


async def test_who_may_watch_nothing_is_refused(editor: Browser, stranger: Browser) -> None:
    editor.rest.cluster.users["editor"] = User("nobody", VIEW, {"elsewhere"})
    assert (await editor.get("/live?kinds=finetunejobs")).status_code == 403
    nobody = await stranger.get("/live?kinds=finetunejobs", Accept="text/event-stream")
    assert nobody.status_code == 401
