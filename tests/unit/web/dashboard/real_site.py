"""The dashboard on a port, for a real browser: it can be stopped and started again like a process of the api."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services
from finetune_operator.web.streams import Streams
from tests.unit.gateway.servers import HOST, free_port
from tests.unit.web.rest.conftest import Rest
from tests.waiting import eventually

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
AWAY = ("net::ERR_", "Failed to fetch")
"""What a browser says of requests that nobody answers."""


def refused(status: int) -> str:
    """What it says of requests that are answered so."""
    return f"the server responded with a status of {status}"


@dataclass
class Site:
    """Where the pages are; `complaints` are what no page may cause in a browser."""

    rest: Rest
    browser: Browser
    port: int = field(default_factory=free_port)
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of what a test has a browser say."""
    _server: uvicorn.Server | None = None
    _running: "asyncio.Task[None] | None" = None
    _contexts: list[BrowserContext] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        object.__setattr__(self.rest.services, "streams", Streams())
        app = create_app(self.rest.services)
        self._server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=self.port, log_config=None, access_log=False))
        self._running = asyncio.create_task(self._server.serve())
        await eventually(lambda: self._server is not None and self._server.started)

    async def stop(self) -> None:
        """As on SIGTERM: streams end at once, and nobody answers any more."""
        assert self._server is not None
        assert self._running is not None
        self.services.streams.stop()
        self._server.should_exit = True
        await self._running

    @property
    def services(self) -> Services:
        return self.rest.services

    async def person(self, *, dark: bool = False, phone: bool = False) -> BrowserContext:
        """A browser of somebody's own, who is not logged in."""
        context = await self.browser.new_context(
            base_url=self.url,
            color_scheme="dark" if dark else "light",
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(20_000)
        context.on("page", self._listen)
        self._contexts.append(context)
        return context

    async def logged_in(self, *, dark: bool = False, phone: bool = False, who: str = "editor") -> Page:
        page = await (await self.person(dark=dark, phone=phone)).new_page()
        await page.goto("/fine-tuning")
        await page.get_by_label("Token").fill(who)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/fine-tuning")
        return page

    async def close(self) -> None:
        for context in self._contexts:
            with suppress(Exception):
                await context.close()

    def _listen(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")


@asynccontextmanager
async def opened(rest: Rest, browser: Browser) -> AsyncIterator[Site]:
    """No page may break the policy, or cause an error in the browser, whatever the test does."""
    site = Site(rest, browser)
    await site.start()
    try:
        yield site
        assert site.complaints == [], "\n".join(site.complaints)
    finally:
        await site.close()
        await site.stop()
