"""Feedback on answers by their request ids, and the ratings that trainings learn from.

A rating is written only with the texts that the client chose to give: nobody else records prompts and answers. Which
version answered is what the request id tells; in which ABTest, is what the gateway's samples know of it.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.ratings import GOLD_STAR_MIN_RATING
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import ArmSample, Feedback, Rating


@dataclass(frozen=True)
class Texts:
    """What somebody asked and was answered, given for training."""

    prompt: str
    response: str
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None


@dataclass(frozen=True)
class KnownFeedback:
    """What is kept of one request."""

    rating: int
    has_texts: bool


async def give(
    engine: AsyncEngine,
    request_id: str,
    rating: int,
    texts: Texts | None,
    now: datetime,
    version_uid: str | None = None,
) -> KnownFeedback:
    """Keep the first feedback on this request, with its row for trainings or not at all, and return that one."""
    async with engine.begin() as connection:
        first = (
            upsert_dialect(connection.dialect)
            .insert(Feedback)
            .values(request_id=request_id, rating=rating, created_at=now, version_uid=version_uid)
            .on_conflict_do_nothing()
            .returning(Feedback.request_id)
        )
        is_first = (await connection.execute(first)).one_or_none() is not None
        of_request = Feedback.request_id == request_id
        if is_first and texts is not None:
            added = await connection.execute(insert(Rating).values(_row(rating, texts, now)).returning(Rating.id))
            await connection.execute(update(Feedback).where(of_request).values(rating_id=added.scalar_one()))
        known = (await connection.execute(select(Feedback.rating, Feedback.rating_id).where(of_request))).one()
    return KnownFeedback(known.rating, known.rating_id is not None)


async def of_version(engine: AsyncEngine, version_uid: str) -> RatingTally:
    """How the answers of one version were rated."""
    query = select(Feedback.rating, func.count()).where(Feedback.version_uid == version_uid).group_by(Feedback.rating)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return RatingTally(answers=dict(rows))


async def by_arm(engine: AsyncEngine, abtest_uid: str) -> dict[str, tuple[int, float]]:
    """How many answers of each arm were rated, and their mean rating."""
    query = (
        select(ArmSample.arm, func.count(), func.avg(Feedback.rating))
        .join(Feedback, Feedback.request_id == ArmSample.request_id)
        .where(ArmSample.abtest_uid == abtest_uid)
        .group_by(ArmSample.arm)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {arm: (count, float(mean)) for arm, count, mean in rows}


def _row(rating: int, texts: Texts, now: datetime) -> dict[str, object]:
    """A good answer is one to learn from; a bad one is what a pair's better answer is told from."""
    is_good = rating >= GOLD_STAR_MIN_RATING
    return {
        "prompt": texts.prompt,
        "response": texts.response,
        "rating": rating,
        "is_gold_star": is_good,
        "use_as_sample_response": is_good,
        "philosopher": texts.philosopher,
        "domain": texts.domain,
        "task_type": texts.task_type,
        "created_at": now,
    }
