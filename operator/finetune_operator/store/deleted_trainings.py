"""Trainings whose FineTuneJob is gone: what they spent, and whose judgements they learnt from.

Triggers write them; see `deleted_training_triggers`.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, case, func, literal, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.mirrored_sums import Namespaces, TrainingSums, trainings_there
from finetune_operator.store.tables import DeletedTraining

Object = dict[str, Any]


class UnknownPlace(ValueError):
    """A page was to begin after what was never there."""


class Deleted(NamedTuple):
    """A FineTuneJob as it was last known."""

    body: Object
    deleted_at: datetime


class Found(NamedTuple):
    """A page, and how many there are of all."""

    trainings: tuple[Deleted, ...]
    total: int


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
        .where(*_of(namespaces))
        .group_by(currency)
    )


async def page(engine: AsyncEngine, namespaces: Namespaces, model: str | None, after: str | None, limit: int) -> Found:
    """At most `limit`, the last deleted first; `after` is a uid. Raises `UnknownPlace`."""
    order = DeletedTraining.deleted_at, DeletedTraining.uid
    chosen = _of(namespaces)
    if model is not None:
        chosen.append(DeletedTraining.model == model)
    keys = select(DeletedTraining.uid).where(*chosen).order_by(*(column.desc() for column in order)).limit(limit)
    count = select(func.count()).select_from(DeletedTraining).where(*chosen)
    async with engine.connect() as connection:
        if after is not None:
            place = (await connection.execute(select(*order).where(DeletedTraining.uid == after))).one_or_none()
            if place is None:
                raise UnknownPlace(after)
            keys = keys.where(tuple_(*order) < tuple_(*place))
        total = (await connection.execute(count)).scalar_one()
        uids = (await connection.scalars(keys)).all()
        columns = DeletedTraining.uid, DeletedTraining.body, DeletedTraining.deleted_at
        rows = (await connection.execute(select(*columns).where(DeletedTraining.uid.in_(uids)))).all()
    found = {row.uid: Deleted(row.body, row.deleted_at) for row in rows}
    return Found(tuple(found[uid] for uid in uids), total)


async def body_of(engine: AsyncEngine, namespace: str, uid: str) -> Object | None:
    """The FineTuneJob as it was last known; None of one that is there, or was never seen."""
    query = select(DeletedTraining.body).where(DeletedTraining.uid == uid, *_of((namespace,)))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one_or_none()


async def origins(engine: AsyncEngine, namespaces: Namespaces) -> dict[str, tuple[str | None, str | None]]:
    """Philosopher and domain of all of them, by the uid."""
    columns = DeletedTraining.uid, DeletedTraining.philosopher, DeletedTraining.domain
    async with engine.connect() as connection:
        rows = (await connection.execute(select(*columns).where(*_of(namespaces)))).all()
    return {row.uid: (row.philosopher, row.domain) for row in rows}


def _of(namespaces: Namespaces) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [~DeletedTraining.is_back]
    if namespaces is not None:
        conditions.append(DeletedTraining.namespace.in_(namespaces))
    return conditions
