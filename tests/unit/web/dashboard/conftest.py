"""The dashboard on a played API server: asked for as a browser does, with the cookie of who is logged in."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Browser as Chromium

from finetune_operator.web.dashboard.visits import COOKIE
from tests import chromium
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.dashboard import sights
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.conftest import Rest, cluster, rest

__all__ = ["cluster", "rest"]

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    """One person's: keeps the cookie, follows nothing by itself, runs no script."""

    def __init__(self, rest: Rest, token: str | None) -> None:
        self.rest = rest
        self.cookies = {COOKIE: token} if token else {}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._ask("GET", path, headers)

    async def page(self, path: str) -> str:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        text: str = answer.text
        return text

    async def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
        return await self._ask("POST", path, SAME_ORIGIN | headers, form or {})

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], form: dict[str, Any] | None = None
    ) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            named["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return await self.rest.client.request(method, path, headers=named, data=form)


def with_ratings(directory: Path) -> dict[str, str]:
    """An environment with a ratings database, one text of which is hostile, and a place for datasets."""
    rows = [rating(number) for number in range(24)]
    rows += [rating(99, domain=sights.HOSTILE, response=f"It is {sights.HOSTILE}, as all know.")]
    (directory / "url").write_text(write_ratings(directory / "ratings.db", rows))
    return {
        "FINETUNE_RATINGS_URL_FILE": str(directory / "url"),
        "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return ENVIRONMENT | {"FINETUNE_NAMESPACES": sights.NAMESPACE} | with_ratings(tmp_path)


@pytest.fixture
async def sighted(rest: Rest) -> Rest:
    """Something of everything to look at."""
    # To start a process for each count takes longer than all the rest.
    object.__setattr__(rest.services, "worker", WorkerThread())
    sights.fill(rest.cluster)
    await sights.measure(rest.services.engine)
    return rest


@pytest.fixture
def editor(sighted: Rest) -> Browser:
    return Browser(sighted, "editor")


@pytest.fixture
def stranger(rest: Rest) -> Browser:
    return Browser(rest, None)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Chromium]:
    async with chromium.running() as found:
        yield found
