"""Evaluations of versions: each kept once by its id, however often it is sent."""

from collections import defaultdict

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.keyset import Mark, beyond
from finetune_operator.store.tables import Evaluation, EvaluationValue


async def record(engine: AsyncEngine, identity: str, evaluation: RecordedEvaluation) -> None:
    """Keep it with all its values, or nothing of it; the same id again replaces what was there."""
    columns = evaluation.model_dump(exclude={"values"}, mode="python") | {"source": evaluation.source.value}
    async with engine.begin() as connection:
        statement = upsert_dialect(connection.dialect).insert(Evaluation).values(id=identity, **columns)
        await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=columns))
        await connection.execute(delete(EvaluationValue).where(EvaluationValue.evaluation_id == identity))
        if evaluation.values:
            rows = [{"evaluation_id": identity} | value.model_dump() for value in evaluation.values]
            await connection.execute(insert(EvaluationValue), rows)


async def of_version(
    engine: AsyncEngine,
    namespace: str,
    model_version: str,
    limit: int,
    *,
    after: Mark | None = None,
    source: EvaluationSource | None = None,
) -> list[tuple[str, RecordedEvaluation]]:
    """The newest first, with their ids."""
    wanted = [Evaluation.namespace == namespace, Evaluation.model_version == model_version]
    if after is not None:
        wanted.append(beyond(Evaluation.measured_at, Evaluation.id, after))
    if source is not None:
        wanted.append(Evaluation.source == source.value)
    query = select(Evaluation).where(*wanted).order_by(Evaluation.measured_at.desc(), Evaluation.id).limit(limit)
    async with AsyncSession(engine) as session:
        found = (await session.scalars(query)).all()
        values: dict[str, list[RecordedValue]] = defaultdict(list)
        of_these = EvaluationValue.evaluation_id.in_([evaluation.id for evaluation in found])
        for value in await session.scalars(select(EvaluationValue).where(of_these).order_by(EvaluationValue.name)):
            values[value.evaluation_id].append(
                RecordedValue(name=value.name, base=value.base, fine_tuned=value.fine_tuned)
            )
    return [(evaluation.id, _recorded(evaluation, values[evaluation.id])) for evaluation in found]


def _recorded(evaluation: Evaluation, values: list[RecordedValue]) -> RecordedEvaluation:
    return RecordedEvaluation(
        source=EvaluationSource(evaluation.source),
        namespace=evaluation.namespace,
        model_version=evaluation.model_version,
        model=evaluation.model,
        base_model=evaluation.base_model,
        adapter_digest=evaluation.adapter_digest,
        dataset_digest=evaluation.dataset_digest,
        examples=evaluation.examples,
        message=evaluation.message,
        currency=evaluation.currency,
        measured_at=evaluation.measured_at,
        values=tuple(values),
    )
