"""Pages of the api beside a real API server, as a browser without scripts asks for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

HERE = {"Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def person(url: str, token: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's session, logged in by the form."""
    jar = aiohttp.CookieJar(unsafe=True)  # of an address without a name
    async with aiohttp.ClientSession(url, cookie_jar=jar, headers=HERE) as session:
        async with session.post("/login", data={"token": token}, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
        yield session


async def page_of(visitor: aiohttp.ClientSession, path: str) -> str:
    async with visitor.get(path) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.text()
