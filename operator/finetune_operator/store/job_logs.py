"""The last lines of trainings' containers: of each the newest that it told, of the newest containers alone."""

from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.training import JobIdentity
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import TrainingLog

MOST_LOGS = 2_000
"""Of 64 KiB at most, hence 128 MiB; a log that is new takes the place of the oldest."""


async def record(engine: AsyncEngine, tail: LogTail, most_logs: int = MOST_LOGS) -> None:
    """Keep it in place of what the container told before; a post that comes late is no news."""
    values = tail.model_dump(exclude={"job"}) | {
        "job_uid": tail.job.uid,
        "namespace": tail.job.namespace,
        "name": tail.job.name,
    }
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(TrainingLog).values(**values)
        newer = insert.on_conflict_do_update(
            index_elements=["job_uid", "container"],
            set_={"text": insert.excluded.text, "time": insert.excluded.time},
            where=TrainingLog.time <= insert.excluded.time,
        )
        await connection.execute(newer)
        key = tuple_(TrainingLog.job_uid, TrainingLog.container)
        newest = (TrainingLog.time.desc(), TrainingLog.job_uid, TrainingLog.container)
        over = select(TrainingLog.job_uid, TrainingLog.container).order_by(*newest).limit(most_logs).offset(most_logs)
        await connection.execute(delete(TrainingLog).where(key.in_(over)))


async def of_job(engine: AsyncEngine, job_uid: str) -> list[LogTail]:
    """In the order in which the containers run."""
    query = select(TrainingLog).where(TrainingLog.job_uid == job_uid).order_by(TrainingLog.container)
    async with AsyncSession(engine) as session:
        return [
            LogTail(
                job=JobIdentity(namespace=log.namespace, name=log.name, uid=log.job_uid),
                container="prepare" if log.container == "prepare" else "trainer",
                text=log.text,
                time=log.time,
            )
            for log in await session.scalars(query)
        ]
