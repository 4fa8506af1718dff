"""Pages of resources that are gone, as triggers have kept them."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.mirrored_sums import Namespaces
from finetune_operator.store.tables import DeletedRow

Object = dict[str, Any]


class UnknownPlace(ValueError):
    """A page was to begin after what was never there."""


class Deleted(NamedTuple):
    """A resource as it was last known."""

    body: Object
    deleted_at: datetime


class Found(NamedTuple):
    """A page, and how many there are of all."""

    resources: tuple[Deleted, ...]
    total: int


async def page(
    engine: AsyncEngine,
    table: type[DeletedRow],
    namespaces: Namespaces,
    model: str | None,
    after: str | None,
    limit: int,
) -> Found:
    """At most `limit`, the last deleted first; `after` is a uid. Raises `UnknownPlace`."""
    order = table.deleted_at, table.uid
    chosen = conditions(table, namespaces)
    if model is not None:
        chosen.append(table.model == model)
    keys = select(table.uid).where(*chosen).order_by(*(column.desc() for column in order)).limit(limit)
    count = select(func.count()).select_from(table).where(*chosen)
    async with engine.connect() as connection:
        if after is not None:
            place = (await connection.execute(select(*order).where(table.uid == after))).one_or_none()
            if place is None:
                raise UnknownPlace(after)
            keys = keys.where(tuple_(*order) < tuple_(*place))
        total = (await connection.execute(count)).scalar_one()
        uids = (await connection.scalars(keys)).all()
        columns = table.uid, table.body, table.deleted_at
        rows = (await connection.execute(select(*columns).where(table.uid.in_(uids)))).all()
    found = {row.uid: Deleted(row.body, row.deleted_at) for row in rows}
    return Found(tuple(found[uid] for uid in uids), total)


def conditions(table: type[DeletedRow], namespaces: Namespaces) -> list[ColumnElement[bool]]:
    """Of those that are still gone."""
    found: list[ColumnElement[bool]] = [~table.is_back]
    if namespaces is not None:
        found.append(table.namespace.in_(namespaces))
    return found
