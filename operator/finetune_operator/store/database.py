"""Engines and URLs: which databases the product speaks to, and how each is opened."""

import os
import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Dialect, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_SECONDS = 10
SECRET_PARAMETERS = ("password", "sslpassword", "passfile")

EXAMPLE_URLS = "sqlite:////ratings/ratings.db or postgresql://user:password@host:5432/database"


class UnusableUrl(ValueError):
    """A database URL that no driver here understands; the text never contains the URL."""


def parse_url(text: str) -> URL:
    """Read a SQLAlchemy URL of SQLite or PostgreSQL, with or without a driver."""
    try:
        url = make_url(re.sub(r"^postgres://", "postgresql://", text.strip()))
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise UnusableUrl(f"the database URL can't be parsed; write it like {EXAMPLE_URLS}") from None
    if backend not in {"sqlite", "postgresql"}:
        raise UnusableUrl(f"databases of type {backend!r} are not supported; write the URL like {EXAMPLE_URLS}")
    if backend == "sqlite" and not url.database:
        raise UnusableUrl(f"the SQLite URL names no file; write it like {EXAMPLE_URLS}")
    return url


def shown(url: URL) -> str:
    """The URL for people: the password blanked, no parameters."""
    return url.set(query={}).render_as_string(hide_password=True)


def without_secrets(text: str, url: URL) -> str:
    """A driver's message with the URL's secrets blanked."""
    parameters = [url.query.get(name) for name in SECRET_PARAMETERS]
    for secret in (url.password, *parameters):
        for part in (secret,) if isinstance(secret, str) else secret or ():
            text = text.replace(part, "***") if part else text
    return text


def read_only_engine(url: URL, timeout_seconds: float) -> Engine:
    """A synchronous engine that never writes, not even the files beside an SQLite database.

    A directory that is not writable can't hold SQLite's shared-memory file, so that the database is then read as
    immutable: without locks and without its write-ahead log.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        immutable = "" if is_writable(path.parent) else "&immutable=1"
        address = f"file:{quote(str(path))}?mode=ro{immutable}"
        return create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(address, uri=True, timeout=timeout_seconds),
            poolclass=NullPool,
        )
    arguments: dict[str, Any] = {
        "connect_timeout": max(2, int(timeout_seconds)),
        "options": "-c default_transaction_read_only=on",
    }
    return create_engine(url.set(drivername="postgresql+psycopg"), connect_args=arguments, poolclass=NullPool)


def is_writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK)


def async_engine(url: URL) -> AsyncEngine:
    """The api's engine. SQLite gets a write-ahead log, foreign keys, and transactions that really are some."""
    if url.get_backend_name() == "postgresql":
        return create_async_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver would begin transactions only before some statements, leaving DDL outside of them.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def upsert_dialect(dialect: Dialect) -> Any:
    """The module whose `insert` knows ON CONFLICT; SQLite's and PostgreSQL's have the same signature."""
    return postgresql if dialect.name == "postgresql" else sqlite
