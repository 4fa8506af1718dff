"""Series of training progress: kept once however often a trainer sends a point."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.training import JobIdentity, LatestProgress, Progress
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import ProgressPoint

IDENTITY = {"namespace": "namespace", "name": "name", "uid": "job_uid"}
"""Of a job, by its columns."""


async def record(engine: AsyncEngine, points: Sequence[Progress]) -> None:
    """Keep these points, all or none; the same (job, attempt, step) again is no news."""
    if not points:
        return
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(ProgressPoint).on_conflict_do_nothing()
        await connection.execute(insert, [_values(point) for point in points])


async def latest(engine: AsyncEngine, job_uids: Sequence[str]) -> LatestProgress:
    """The newest point of each job that has one, with the best loss of its whole series."""
    rank = (
        func.row_number()
        .over(
            partition_by=ProgressPoint.job_uid,
            order_by=(ProgressPoint.time.desc(), ProgressPoint.step.desc()),
        )
        .label("rank")
    )
    ranked = select(ProgressPoint, rank).where(ProgressPoint.job_uid.in_(job_uids)).subquery()
    newest = (
        select(ProgressPoint)
        .join(
            ranked,
            (ranked.c.job_uid == ProgressPoint.job_uid)
            & (ranked.c.attempt == ProgressPoint.attempt)
            & (ranked.c.step == ProgressPoint.step),
        )
        .where(ranked.c.rank == 1)
    )
    async with AsyncSession(engine) as session:
        points = (await session.scalars(newest)).all()
        best = await _best_losses(session, [point.job_uid for point in points])
    return LatestProgress({point.job_uid: _progress(point, best[point.job_uid]) for point in points})


async def count(engine: AsyncEngine, job_uid: str) -> int:
    """How many points its series has."""
    async with engine.connect() as connection:
        query = select(func.count()).select_from(ProgressPoint).where(ProgressPoint.job_uid == job_uid)
        return (await connection.execute(query)).scalar_one()


async def series(engine: AsyncEngine, job_uid: str, max_points: int) -> tuple[list[Progress], float | None]:
    """A job's points in the order of time, evenly thinned to about `max_points`, and its best loss."""
    number = func.row_number().over(order_by=(ProgressPoint.time, ProgressPoint.step)).label("number")
    of_job = ProgressPoint.job_uid == job_uid
    losses = func.min(ProgressPoint.loss), func.min(ProgressPoint.best_loss)
    async with engine.connect() as connection:
        total, *best = (await connection.execute(select(func.count(), *losses).where(of_job))).one()
        stride = max(1, math.ceil(total / max_points))
        numbered = select(ProgressPoint.attempt, ProgressPoint.step, number).where(of_job).subquery()
        query = (
            select(*ProgressPoint.__table__.columns)
            .join(
                numbered,
                (numbered.c.attempt == ProgressPoint.attempt) & (numbered.c.step == ProgressPoint.step) & of_job,
            )
            .where(or_(numbered.c.number % stride == 1 % stride, numbered.c.number == total))
            .order_by(numbered.c.number)
        )
        rows = (await connection.execute(query)).all()
    return [_told(row) for row in rows], _least(best)


async def _best_losses(session: AsyncSession, job_uids: Sequence[str]) -> dict[str, float | None]:
    query = (
        select(ProgressPoint.job_uid, func.min(ProgressPoint.loss), func.min(ProgressPoint.best_loss))
        .where(ProgressPoint.job_uid.in_(job_uids))
        .group_by(ProgressPoint.job_uid)
    )
    rows = (await session.execute(query)).all()
    return {uid: _least(losses) for uid, *losses in rows}


def _least(losses: Iterable[float | None]) -> float | None:
    return min((loss for loss in losses if loss is not None), default=None)


def _told(row: Row[Any]) -> Progress:
    """Not validated once more: it was when it came."""
    values = row._asdict()
    job = JobIdentity.model_construct(**{name: values.pop(column) for name, column in IDENTITY.items()})
    return Progress.model_construct(job=job, **values)


def _progress(point: ProgressPoint, best_loss: float | None) -> Progress:
    return Progress(
        job=JobIdentity(namespace=point.namespace, name=point.name, uid=point.job_uid),
        attempt=point.attempt,
        step=point.step,
        total_steps=point.total_steps,
        epoch=point.epoch,
        total_epochs=point.total_epochs,
        loss=point.loss,
        best_loss=best_loss,
        learning_rate=point.learning_rate,
        eta_seconds=point.eta_seconds,
        eval_loss=point.eval_loss,
        grad_norm=point.grad_norm,
        tokens=point.tokens,
        tokens_per_second=point.tokens_per_second,
        gpu_memory_bytes=point.gpu_memory_bytes,
        checkpoint_step=point.checkpoint_step,
        checkpoint_time=point.checkpoint_time,
        failed_rows=point.failed_rows,
        time=point.time,
    )


def _values(point: Progress) -> dict[str, object]:
    values = point.model_dump(exclude={"job"})
    numbers = {name: _finite(value) if isinstance(value, float) else value for name, value in values.items()}
    return numbers | {"job_uid": point.job.uid, "namespace": point.job.namespace, "name": point.job.name}


def _finite(value: float) -> float | None:
    """A diverged training reports NaN, which neither JSON nor a minimum can bear."""
    return value if math.isfinite(value) else None
