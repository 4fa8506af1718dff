"""The provider of these tests."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.providers import pods
from tests.unit.providers.openai_server import OpenAIServer


@pytest.fixture(autouse=True)
async def _no_process_stays() -> AsyncIterator[None]:
    """A test that fails must not leave its pods behind."""
    yield
    while pods.started:
        process = pods.started.pop()
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """A provider with nothing in it yet."""
    server = OpenAIServer()
    await server.start()
    yield server
    await server.stop()
