"""Trainings whose FineTuneJob is gone: what they spent, and whose judgements they learnt from.

Triggers write them; see `deleted_training_triggers`.
"""

from typing import Any

from sqlalchemy import Select, case, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.deleted_rows import conditions
from finetune_operator.store.mirrored_sums import Namespaces, TrainingSums, trainings_there
from finetune_operator.store.tables import DeletedTraining

Object = dict[str, Any]


async def all_sums(engine: AsyncEngine, plural: str, namespaces: Namespaces) -> TrainingSums:
    """With those that are there. One statement, since one that goes between two would count twice."""
    query = union_all(trainings_there(plural, namespaces), _sums(namespaces))
    found = TrainingSums()
    async with engine.connect() as connection:
        for row in (await connection.execute(query)).all():
            found.add_row(*row)
    return found


async def add_to(sums: TrainingSums, engine: AsyncEngine, namespaces: Namespaces) -> None:
    """What they have spent, to the sums of those that are there."""
    async with engine.connect() as connection:
        for row in (await connection.execute(_sums(namespaces))).all():
            sums.add_row(*row)


def _sums(namespaces: Namespaces) -> Select[str | None, int, int, int, int, Any]:
    """As `trainings_there`."""
    currency, unpriced = DeletedTraining.currency, func.count(case((DeletedTraining.is_unpriced, 1)))
    spent = func.sum(DeletedTraining.amount_micros)
    return (
        select(currency, func.count(), func.count(), unpriced, literal(0), spent)
        .where(*conditions(DeletedTraining, namespaces))
        .group_by(currency)
    )


async def body_of(engine: AsyncEngine, namespace: str, uid: str) -> Object | None:
    """The FineTuneJob as it was last known; None of one that is there, or was never seen."""
    query = select(DeletedTraining.body).where(DeletedTraining.uid == uid, *conditions(DeletedTraining, (namespace,)))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one_or_none()


async def origins(engine: AsyncEngine, namespaces: Namespaces) -> dict[str, tuple[str | None, str | None]]:
    """Philosopher and domain of all of them, by the uid."""
    columns = DeletedTraining.uid, DeletedTraining.philosopher, DeletedTraining.domain
    async with engine.connect() as connection:
        rows = (await connection.execute(select(*columns).where(*conditions(DeletedTraining, namespaces)))).all()
    return {row.uid: (row.philosopher, row.domain) for row in rows}
