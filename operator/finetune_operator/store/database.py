"""The api's engine: which databases it speaks to, and how each is opened."""

from typing import Any

from sqlalchemy import URL, Connection, Dialect, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from finetune_operator.store.urls import DatabaseUrl, UnusableUrl, parse_url, shown

__all__ = ["WRITES_FIRST", "UnusableUrl", "async_engine", "parse_url", "shown", "upsert_dialect"]

BUSY_TIMEOUT_SECONDS = 10
WRITES_FIRST = "writes_first"
"""Execution option: SQLite refuses at once who has read before another wrote, and then writes; this one waits."""


def async_engine(url: DatabaseUrl) -> AsyncEngine:
    """The api's engine. SQLite gets a write-ahead log, foreign keys, and transactions that really are some."""
    if url.backend == "postgresql":
        return create_async_engine(_with_driver(url, "postgresql+psycopg"), pool_pre_ping=True)
    engine = create_async_engine(_with_driver(url, "sqlite+aiosqlite"), connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _with_driver(url: DatabaseUrl, name: str) -> URL:
    query = {parameter: values if len(values) > 1 else values[0] for parameter, values in url.query.items()}
    return URL.create(name, url.user, url.password, url.host, url.port, url.database, query)


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver would begin transactions only before some statements, leaving DDL outside of them.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes_first = connection.get_execution_options().get(WRITES_FIRST, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes_first else "BEGIN")


def upsert_dialect(dialect: Dialect) -> Any:
    """The module whose `insert` knows ON CONFLICT; SQLite's and PostgreSQL's have the same signature."""
    return postgresql if dialect.name == "postgresql" else sqlite
