"""The provider of these tests."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.providers.openai_server import OpenAIServer


@pytest.fixture
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """A provider with nothing in it yet."""
    server = OpenAIServer()
    await server.start()
    yield server
    await server.stop()
