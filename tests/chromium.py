"""A real Chromium of the distribution, driven by Playwright.

The package is installed where it is missing, which needs root on Debian or Ubuntu; elsewhere the tests that need a
browser fail and say so. As root Chromium has no sandbox, which is for pages of strangers, and these are our own.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

from local_cluster import packages

PACKAGE = packages.Package("chromium", ("chromium",))


@asynccontextmanager
async def running() -> AsyncIterator[Browser]:
    packages.install((PACKAGE,))
    program = packages.find_program("chromium")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=[*sandbox, "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        )
        try:
            yield browser
        finally:
            await browser.close()
