"""Samples of production traffic during an ABTest, and what they sum up to."""

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import SupportsFloat

from sqlalchemy import ColumnElement, Double, case, cast, func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute

from finetune_operator.contract.experiments import ArmTallies, ArmTally, SampleBatch, SplitTally
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import ArmSample, Base, SplitSubject

FIRST_ERROR_STATUS = 500


async def record(engine: AsyncEngine, batch: SampleBatch) -> int:
    """Keep the samples that are new and return how many those were."""
    samples = [
        sample.model_dump() | {"abtest_uid": sample.ab_test, "shadow": shadow}
        for shadow, found in ((False, batch.samples), (True, batch.shadows))
        for sample in found
    ]
    if not samples:
        return 0
    subjects = [sample for sample in samples if None not in (sample["subject"], sample["candidate_percent"])]
    # In one order everywhere, lest two batches with the same subjects wait for each other.
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
    copied, failed = ArmSample.shadow, ArmSample.status >= FIRST_ERROR_STATUS
    has_tokens = ~copied & ~failed & ArmSample.completion_tokens.is_not(None)
    query = (
        select(
            ArmSample.arm,
            func.count(case((~copied, 1))),
            func.count(case((~copied & failed, 1))),
            func.avg(case((~copied & ~failed, ArmSample.latency_ms))),
            func.avg(case((~copied & ~failed, _square(ArmSample.latency_ms)))),
            func.count(case((has_tokens, 1))),
            func.avg(case((has_tokens, ArmSample.prompt_tokens))),
            func.avg(case((has_tokens, ArmSample.completion_tokens))),
            func.avg(case((has_tokens, _square(ArmSample.completion_tokens)))),
            func.count(case((copied, 1))),
            func.count(case((copied & failed, 1))),
            func.avg(case((copied & ~failed, ArmSample.latency_ms))),
        )
        .where(ArmSample.abtest_uid == abtest_uid)
        .group_by(ArmSample.arm)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    arms = {
        arm: ArmTally(
            samples=samples,
            errors=errors,
            mean_latency_ms=_rounded(latency_ms),
            deviation_latency_ms=_deviation(latency_ms, squared_ms),
            samples_with_tokens=with_tokens,
            mean_prompt_tokens=None if prompt is None else float(prompt),
            mean_completion_tokens=None if length is None else float(length),
            deviation_completion_tokens=_deviation(length, squared_length),
            shadow_samples=copies,
            shadow_errors=copy_errors,
            shadow_mean_latency_ms=_rounded(copy_ms),
        )
        for (
            arm, samples, errors, latency_ms, squared_ms, with_tokens, prompt, length, squared_length, copies,
            copy_errors, copy_ms,
        ) in rows
    }  # fmt: skip
    return ArmTallies(baseline=arms.get("baseline", ArmTally()), candidate=arms.get("candidate", ArmTally()))


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


def _square(column: InstrumentedAttribute[int] | InstrumentedAttribute[int | None]) -> ColumnElement[float]:
    """As a floating point number: PostgreSQL's integers would overflow."""
    value = cast(column, Double)
    return value * value


def _rounded(mean: SupportsFloat | None) -> int | None:
    return None if mean is None else round(float(mean))


def _deviation(mean: SupportsFloat | None, mean_square: SupportsFloat | None) -> float | None:
    if mean is None or mean_square is None:
        return None
    return sqrt(max(0.0, float(mean_square) - float(mean) ** 2))


def _values(samples: Iterable[Mapping[str, object]], table: type[Base]) -> list[dict[str, object]]:
    columns = table.__table__.columns.keys()
    return [{column: sample[column] for column in columns} for sample in samples]
