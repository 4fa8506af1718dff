"""Ratings databases for tests, with the product's own schema."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, insert

from finetune_operator.store.migrations import apply_next
from finetune_operator.store.tables import Rating

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def rating(number: int, **changes: Any) -> dict[str, Any]:
    """A gold-star rating that every default filter and rule accepts."""
    return {
        "prompt": f"What is the use of question {number}?",
        "response": f"Question {number} is of use to those who think about it.",
        "rating": 5,
        "is_gold_star": True,
        "use_as_sample_response": True,
        "philosopher": "plato",
        "domain": "ethics",
        "task_type": "summarization",
        "confidence": 0.9,
        "created_at": NOON,
    } | changes


def write_ratings(file: Path, rows: Iterable[dict[str, Any]]) -> str:
    """An SQLite database with these rows; returns its URL."""
    return fill_database(f"sqlite:///{file}", rows)


def fill_database(url: str, rows: Iterable[dict[str, Any]]) -> str:
    """The product's tables and these rows in an empty database; returns its URL."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        while apply_next(connection):
            pass
        for row in rows:
            connection.execute(insert(Rating).values(**row))
    engine.dispose()
    return url
