"""Samples of production traffic during an ABTest, and what they sum up to."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import sqrt
from typing import Any, NamedTuple

from sqlalchemy import Double, Row, case, cast, func, null, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from finetune_operator.contract.experiments import ArmTallies, ArmTally, SampleBatch, SplitTally
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.experiment_tables import ArmSample, ArmSums, Feedback, SplitSubject, SubjectSums
from finetune_operator.store.tables import Base, Rating

SHOWN_MAX_CHARACTERS = 4000


class ToldSample(NamedTuple):
    """A sample, with what feedback says of its answer; texts are beginnings, and None where nobody gave them."""

    sample: ArmSample
    rating: int | None
    reference_score: float | None
    prompt: str | None
    prediction: str | None
    reference: str | None


class SamplePlace(NamedTuple):
    """A moment in the order of time, of whose samples so many were shown."""

    time: datetime
    shown: int


class SubjectsError(NamedTuple):
    """The standard error of a mean of answers, whose subjects are what is independent of each other."""

    subjects: int
    standard_error: float | None


NOBODY = SubjectsError(0, None)


async def record(engine: AsyncEngine, batch: SampleBatch) -> int:
    """Keep the samples that are new and return how many those were."""
    samples = [
        sample.model_dump() | {"abtest_uid": sample.ab_test, "shadow": shadow}
        for shadow, found in ((False, batch.samples), (True, batch.shadows))
        for sample in found
    ]
    if not samples:
        return 0
    # In one order everywhere, lest two batches wait for each other: their tests' sums, and their subjects.
    samples.sort(key=lambda sample: (sample["abtest_uid"], sample["arm"]))
    subjects = [sample for sample in samples if None not in (sample["subject"], sample["candidate_percent"])]
    subjects.sort(key=lambda sample: (sample["abtest_uid"], sample["subject"]))
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert
        new = insert(ArmSample).on_conflict_do_nothing().returning(ArmSample.request_id)
        recorded = len((await connection.execute(new, _values(samples, ArmSample))).all())
        if subjects:
            await connection.execute(insert(SplitSubject).on_conflict_do_nothing(), _values(subjects, SplitSubject))
    return recorded


async def tally(engine: AsyncEngine, abtest_uid: str) -> ArmTallies:
    """Per arm, copies apart: requests, failed ones, and the means of the others. A client's 4xx is no failure."""
    query = select(*ArmSums.__table__.columns).where(ArmSums.abtest_uid == abtest_uid)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
        latencies = await _errors(connection, abtest_uid, SubjectSums.answers, SubjectSums.latency_ms)
        lengths = await _errors(connection, abtest_uid, SubjectSums.answers_with_tokens, SubjectSums.completion_tokens)
    arms = {row.arm: _tally(row, latencies.get(row.arm, NOBODY), lengths.get(row.arm, NOBODY)) for row in rows}
    return ArmTallies(baseline=arms.get("baseline", ArmTally()), candidate=arms.get("candidate", ArmTally()))


async def _errors(
    connection: AsyncConnection,
    abtest_uid: str,
    answers: InstrumentedAttribute[int],
    total: InstrumentedAttribute[float],
) -> dict[str, SubjectsError]:
    """By arm, of a mean of answers whose subjects have so many each, that sum up to this."""
    answers_of, total_of = (cast(column, Double) for column in (answers, total))
    query = (
        select(
            SubjectSums.arm,
            func.count().label("subjects"),
            func.sum(answers_of).label("answers"),
            func.sum(total_of).label("total"),
            func.sum(answers_of * answers_of).label("answers_squared"),
            func.sum(answers_of * total_of).label("product"),
            func.sum(total_of * total_of).label("total_squared"),
        )
        .where(SubjectSums.abtest_uid == abtest_uid, answers > 0)
        .group_by(SubjectSums.arm)
    )
    found = {}
    for row in (await connection.execute(query)).all():
        mean = row.total / row.answers
        residuals = row.total_squared - 2 * mean * row.product + mean**2 * row.answers_squared
        found[row.arm] = SubjectsError(row.subjects, sqrt(max(0.0, residuals)) / row.answers)
    return found


def _tally(row: Row[Any], latency: SubjectsError, length: SubjectsError) -> ArmTally:
    answered, with_tokens = row.samples - row.errors, row.samples_with_tokens
    return ArmTally(
        samples=row.samples,
        errors=row.errors,
        mean_latency_ms=_rounded(_mean(row.latency_ms, answered)),
        latency_subjects=latency.subjects,
        standard_error_latency_ms=latency.standard_error,
        samples_with_tokens=with_tokens,
        mean_prompt_tokens=_mean(row.prompt_tokens, row.prompted_samples),
        mean_completion_tokens=_mean(row.completion_tokens, with_tokens),
        token_subjects=length.subjects,
        standard_error_completion_tokens=length.standard_error,
        shadow_samples=row.shadow_samples,
        shadow_errors=row.shadow_errors,
        shadow_mean_latency_ms=_rounded(_mean(row.shadow_latency_ms, row.shadow_samples - row.shadow_errors)),
    )


async def splits(engine: AsyncEngine, abtest_uid: str) -> tuple[SplitTally, ...]:
    """How many subjects each arm got, by the split that held when the subject was first sampled."""
    of_arm = (func.count(case((SplitSubject.arm == arm, 1))) for arm in ("baseline", "candidate"))
    query = (
        select(SplitSubject.candidate_percent, *of_arm)
        .where(SplitSubject.abtest_uid == abtest_uid)
        .group_by(SplitSubject.candidate_percent)
        .order_by(SplitSubject.candidate_percent)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return tuple(SplitTally(candidate_percent=row[0], baseline=row[1], candidate=row[2]) for row in rows)


async def newest(
    engine: AsyncEngine,
    abtest_uid: str,
    arm: str | None,
    limit: int,
    after: SamplePlace | None,
    *,
    with_texts: bool,
) -> list[ToldSample]:
    """One by one, those after a place in that order."""
    answer, reference = aliased(Rating), aliased(Rating)
    given = (answer.prompt, answer.response, reference.response)
    texts = (func.substr(text, 1, SHOWN_MAX_CHARACTERS) if with_texts else null() for text in given)
    query = (
        select(ArmSample, Feedback.rating, Feedback.reference_score, *texts)
        .outerjoin(Feedback, Feedback.request_id == ArmSample.request_id)
        .where(ArmSample.abtest_uid == abtest_uid)
        .order_by(ArmSample.time.desc(), ArmSample.request_id.desc())
        .limit(limit)
    )
    if arm is not None:
        query = query.where(ArmSample.arm == arm)
    if after is not None:
        query = query.where(ArmSample.time <= after.time).offset(after.shown)
    if with_texts:
        query = query.outerjoin(answer, answer.id == Feedback.rating_id)
        query = query.outerjoin(reference, reference.id == Feedback.reference_rating_id)
    async with AsyncSession(engine) as session:
        return [ToldSample(*row) for row in (await session.execute(query)).all()]


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None


def _rounded(mean: float | None) -> int | None:
    return None if mean is None else round(mean)


def _values(samples: Iterable[Mapping[str, object]], table: type[Base]) -> list[dict[str, object]]:
    columns = table.__table__.columns.keys()
    return [{column: sample[column] for column in columns} for sample in samples]
