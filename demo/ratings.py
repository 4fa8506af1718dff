"""The demo's ratings database: real conversations, rated by a rule that anybody can check.

The corpus has questions with one or several answers by people. Rule: every answer that belongs to its question counts
as a person's five stars and is a gold star; and each question also gets one answer of another question of the same
topic, which counts as one star. Pairs for DPO follow from that: the fitting answer against the foreign one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from demo.conversations import Conversation
from finetune_operator.store.tables import Base, Rating

FIRST_RATED = datetime(2026, 1, 1, tzinfo=UTC)
PHILOSOPHER = "plato"
RULE = "an answer of its own question: 5 stars and gold; an answer of another question of the topic: 1 star"


def rate(conversations: Iterable[Conversation]) -> list[Rating]:
    """The rows, in a fixed order."""
    by_topic: dict[str, list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        by_topic[conversation.topic].append(conversation)
    rows: list[Rating] = []
    for topic, members in sorted(by_topic.items()):
        own = {(member.prompt, member.response) for member in members}
        for prompt in dict.fromkeys(member.prompt for member in members):
            rows += [_row(len(rows) + k, topic, prompt, m.response, 5) for k, m in enumerate(_of(members, prompt))]
            foreign = [member.response for member in members if (prompt, member.response) not in own]
            if foreign:
                rows.append(_row(len(rows), topic, prompt, foreign[_number(topic, prompt) % len(foreign)], 1))
    return rows


def write_database(path: Path, rows: Iterable[Rating]) -> int:
    """A SQLite file with the table `ml_analysis_rating`; returns the number of rows."""
    path.unlink(missing_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine, tables=[Base.metadata.tables[Rating.__tablename__]])
    with Session(engine) as session:
        session.add_all(rows)
        session.commit()
        count = session.query(Rating).count()
    engine.dispose()
    return count


def _of(members: list[Conversation], prompt: str) -> list[Conversation]:
    return [member for member in members if member.prompt == prompt]


def _number(*words: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:4], "big")


def _row(number: int, topic: str, prompt: str, response: str, rating: int) -> Rating:
    good = rating == 5
    return Rating(
        id=number + 1,
        prompt=prompt,
        response=response,
        rating=rating,
        is_gold_star=good,
        use_as_sample_response=good,
        philosopher=PHILOSOPHER,
        domain=topic,
        task_type="conversation",
        confidence=1.0,
        created_at=FIRST_RATED + timedelta(minutes=number),
    )
