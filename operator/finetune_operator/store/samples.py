"""Samples of production traffic during an ABTest, and what they sum up to."""

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import ArmTallies, ArmTally, SampleBatch
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import ArmSample

FIRST_ERROR_STATUS = 500


async def record(engine: AsyncEngine, batch: SampleBatch) -> int:
    """Keep the samples that are new and return how many those were."""
    if not batch.samples:
        return 0
    values = [sample.model_dump(exclude={"ab_test"}) | {"abtest_uid": sample.ab_test} for sample in batch.samples]
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(ArmSample)
        new = insert.on_conflict_do_nothing().returning(ArmSample.request_id)
        return len((await connection.execute(new, values)).all())


async def tally(engine: AsyncEngine, abtest_uid: str) -> ArmTallies:
    """Per arm: requests, failed ones, and the means of the others. A client's mistake (4xx) is no failure."""
    failed = ArmSample.status >= FIRST_ERROR_STATUS
    has_tokens = ~failed & ArmSample.completion_tokens.is_not(None)
    query = (
        select(
            ArmSample.arm,
            func.count(),
            func.count(case((failed, 1))),
            func.avg(case((~failed, ArmSample.latency_ms))),
            func.count(case((has_tokens, 1))),
            func.avg(case((has_tokens, ArmSample.prompt_tokens))),
            func.avg(case((has_tokens, ArmSample.completion_tokens))),
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
            mean_latency_ms=None if latency_ms is None else round(float(latency_ms)),
            samples_with_tokens=with_tokens,
            mean_prompt_tokens=None if prompt is None else float(prompt),
            mean_completion_tokens=None if completion is None else float(completion),
        )
        for arm, samples, errors, latency_ms, with_tokens, prompt, completion in rows
    }
    return ArmTallies(baseline=arms.get("baseline", ArmTally()), candidate=arms.get("candidate", ArmTally()))
