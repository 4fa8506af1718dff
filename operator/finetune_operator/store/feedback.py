"""Feedback on answers by their request ids, and the ratings that trainings learn from.

A rating is written only with the texts that the client chose to give: nobody else records prompts and answers. Which
version answered is what the request id tells; in which ABTest, is what the gateway's samples know of it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from math import sqrt
from typing import TypeVar

from sqlalchemy import Double, ScalarSelect, cast, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.ratings import GOLD_STAR_MIN_RATING, MAX_RATING, MIN_RATING
from finetune_operator.core.scores import token_f1
from finetune_operator.resources.abtest_decision import AccuracyFrom
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.experiment_tables import ArmSample, Feedback
from finetune_operator.store.tables import Rating

Fact = TypeVar("Fact")


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
class Accuracy:
    """Of the answers of an arm that feedback tells it of, by subject; the mean is between 0 and 1."""

    subjects: int
    mean: float
    deviation: float


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
                reference = insert(Rating).values(_row(MAX_RATING, should_be, now)).returning(Rating.id)
                kept["reference_rating_id"] = (await connection.execute(reference)).scalar_one()
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
    arm, score = _sampled(abtest_uid, ArmSample.arm).label("arm"), Feedback.reference_score.label("score")
    told = select(arm, Feedback.rating, score).subquery().c
    query = select(
        told.arm, func.count(), func.avg(told.rating), func.count(told.score), func.avg(told.score)
    ).group_by(told.arm)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {arm: ArmRatings(count, float(mean), *references) for arm, count, mean, *references in rows if arm}


async def accuracy_by_arm(engine: AsyncEngine, abtest_uid: str, source: AccuracyFrom) -> dict[str, Accuracy]:
    """What feedback says of each arm's answers in an ABTest, from 0 to 1.

    Each subject counts once, by the mean of what it said: it is in one arm, and judges all its answers by its own
    measure, so that a hundred ratings of one person are not a hundred observations.
    """
    by_stars = (cast(Feedback.rating, Double) - MIN_RATING) / (MAX_RATING - MIN_RATING)
    accuracy = Feedback.reference_score if source is AccuracyFrom.REFERENCES else by_stars
    begun = select(func.min(ArmSample.time)).where(ArmSample.abtest_uid == abtest_uid).scalar_subquery()
    arm, subject = _sampled(abtest_uid, ArmSample.arm), _sampled(abtest_uid, ArmSample.subject)
    told = (
        select(arm.label("arm"), subject.label("subject"), accuracy.label("accuracy"))
        .where(accuracy.is_not(None), Feedback.created_at >= begun)
        .subquery()
        .c
    )
    by_subject = (
        select(told.arm, func.avg(told.accuracy).label("accuracy"))
        .where(told.arm.is_not(None), told.subject.is_not(None))
        .group_by(told.arm, told.subject)
        .subquery()
        .c
    )
    query = select(
        by_subject.arm, func.count(), func.avg(by_subject.accuracy), func.avg(by_subject.accuracy * by_subject.accuracy)
    ).group_by(by_subject.arm)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {
        arm: Accuracy(count, float(mean), sqrt(max(0.0, float(mean_square) - float(mean) ** 2)))
        for arm, count, mean, mean_square in rows
    }


async def count_all(engine: AsyncEngine) -> int:
    """Of all requests that there is feedback on."""
    async with engine.connect() as connection:
        found: int = (await connection.execute(select(func.count()).select_from(Feedback))).scalar_one()
    return found


def _sampled(abtest_uid: str, column: InstrumentedAttribute[Fact]) -> ScalarSelect[Fact]:
    """Of the request that a feedback is on; None where it was in no arm of this test, and of a copy, which no user saw.

    A query for each feedback, not a join: PostgreSQL would read all samples of the test, most of which have none.
    """
    of_request = ArmSample.abtest_uid == abtest_uid, ArmSample.request_id == Feedback.request_id
    return select(column).where(*of_request, ArmSample.shadow.is_(False)).scalar_subquery()


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
