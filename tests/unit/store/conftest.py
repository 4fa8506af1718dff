"""Servers and databases that the tests of this directory share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from tests import postgres_server
from tests.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_engine(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> AsyncIterator[AsyncEngine]:
    """Not even migrated."""
    url = f"sqlite:///{tmp_path}/api.db" if request.param == "sqlite" else postgres.database()
    made = async_engine(parse_url(url))
    yield made
    await made.dispose()


@pytest.fixture
async def engine(empty_engine: AsyncEngine) -> AsyncEngine:
    await migrate(empty_engine)
    return empty_engine
