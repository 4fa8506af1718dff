"""The dashboard on a played API server: pages asked for as a browser does, with the cookie of who is logged in."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from finetune_operator.web.dashboard.visits import COOKIE
from tests.unit.web.rest.conftest import Rest, cluster, environment, rest

__all__ = ["cluster", "environment", "rest"]

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


class Browser:
    """One person's: keeps the cookie, follows nothing by itself."""

    def __init__(self, rest: Rest, token: str | None) -> None:
        self.rest = rest
        self.cookies = {COOKIE: token} if token else {}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self._ask("GET", path, headers)

    async def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
        return await self._ask("POST", path, SAME_ORIGIN | headers, form or {})

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], form: dict[str, Any] | None = None
    ) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            named["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return await self.rest.client.request(method, path, headers=named, data=form)


@pytest.fixture
async def editor(rest: Rest) -> AsyncIterator[Browser]:
    yield Browser(rest, "editor")


@pytest.fixture
async def stranger(rest: Rest) -> AsyncIterator[Browser]:
    yield Browser(rest, None)
