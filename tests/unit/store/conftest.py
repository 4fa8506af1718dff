"""Servers, databases and pods that the tests of this directory share."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from tests import postgres_server
from tests.postgres_server import PostgresServer
from tests.unit.store.prepare_pod import Pod
from tests.unit.store.ratings_database import fill_database, write_ratings

Fill = Callable[[Iterable[dict[str, Any]]], str]


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


@pytest.fixture(params=["sqlite", "postgresql"])
def fill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fill:
    """Puts rows into a new database of each kind."""
    if request.param == "sqlite":
        return lambda rows: write_ratings(tmp_path_factory.mktemp("db") / "ratings.db", rows)
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda rows: fill_database(server.database(), rows)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """Of the prepare container."""
    return Pod(tmp_path)
