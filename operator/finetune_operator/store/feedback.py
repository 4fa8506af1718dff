"""Feedback on answers by their request ids, and the ratings that trainings learn from.

A rating is written only with the texts that the client chose to give: nobody else records prompts and answers. Which
version answered is what the request id tells; in which ABTest, is what the gateway's samples know of it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.ratings import GOLD_STAR_MIN_RATING, MAX_RATING
from finetune_operator.core.scores import token_f1
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import ArmSample, Feedback, Rating


@dataclass(frozen=True)
class Texts:
    """What somebody asked and was answered, given for training."""

    prompt: str
    response: str
    reference: str | None = None
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None


@dataclass(frozen=True)
class KnownFeedback:
    """What is kept of one request."""

    rating: int
    has_texts: bool
    reference_score: float | None

    @property
    def has_reference(self) -> bool:
        return self.reference_score is not None


@dataclass(frozen=True)
class ArmRatings:
    """How many answers of an arm were rated, and of how many it is known what they should have been."""

    count: int
    mean_rating: float
    references: int
    mean_reference_score: float | None


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
            kept: dict[str, object] = {"rating_id": added.scalar_one()}
            if texts.reference is not None:
                should_be = replace(texts, response=texts.reference)
                await connection.execute(insert(Rating).values(_row(MAX_RATING, should_be, now)))
                kept["reference_score"] = token_f1([texts.response], [texts.reference])
            await connection.execute(update(Feedback).where(of_request).values(kept))
        columns = Feedback.rating, Feedback.rating_id, Feedback.reference_score
        known = (await connection.execute(select(*columns).where(of_request))).one()
    return KnownFeedback(known.rating, known.rating_id is not None, known.reference_score)


async def of_version(engine: AsyncEngine, version_uid: str) -> RatingTally:
    """How the answers of one version were rated."""
    query = select(Feedback.rating, func.count()).where(Feedback.version_uid == version_uid).group_by(Feedback.rating)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return RatingTally(answers=dict(rows))


async def by_arm(engine: AsyncEngine, abtest_uid: str) -> dict[str, ArmRatings]:
    """How the answers of each arm were rated, and how near they came to what they should have been."""
    # A query for each feedback, not a join: PostgreSQL would read all samples of the test, most of which have none.
    arm = (
        select(ArmSample.arm)
        .where(ArmSample.abtest_uid == abtest_uid, ArmSample.request_id == Feedback.request_id)
        .scalar_subquery()
    )
    told = select(arm.label("arm"), Feedback.rating, Feedback.reference_score.label("score")).subquery().c
    query = select(
        told.arm, func.count(), func.avg(told.rating), func.count(told.score), func.avg(told.score)
    ).group_by(told.arm)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {arm: ArmRatings(count, float(mean), *references) for arm, count, mean, *references in rows if arm}


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
