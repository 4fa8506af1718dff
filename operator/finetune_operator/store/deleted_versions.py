"""Versions whose ModelVersion is gone: what their answers cost, at the price that was last known.

Triggers write them; see `deleted_version_triggers`. Only those count that were called: of the others nothing is spent.
"""

from typing import Any

from sqlalchemy import Select, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.deleted_rows import conditions
from finetune_operator.store.mirrored_sums import (
    AnswerSums,
    Namespaces,
    answers_of,
    answers_there,
    versions_there,
)
from finetune_operator.store.tables import DeletedVersion, VersionUsage


async def all_sums(engine: AsyncEngine, plural: str, namespaces: Namespaces) -> AnswerSums:
    """With those that are there. One statement, since one that goes between two would count twice."""
    found = AnswerSums()
    async with engine.connect() as connection:
        query = union_all(answers_there(plural, namespaces), _answers(namespaces))
        for row in (await connection.execute(query)).all():
            found.add_row(*row)
        found.deleted = (await connection.execute(_called(namespaces))).scalar_one()
        there = (await connection.execute(versions_there(plural, namespaces))).scalar_one()
    found.versions = there + found.deleted
    return found


async def add_to(sums: AnswerSums, engine: AsyncEngine, namespaces: Namespaces) -> None:
    """What their answers cost, to the sums of those that are there."""
    async with engine.connect() as connection:
        for row in (await connection.execute(_answers(namespaces))).all():
            sums.add_row(*row)
        deleted = (await connection.execute(_called(namespaces))).scalar_one()
    sums.deleted += deleted
    sums.versions += deleted


def _answers(namespaces: Namespaces) -> Select[str | None, int, Any, Any, Any]:
    return answers_of(DeletedVersion, conditions(DeletedVersion, namespaces))


def _called(namespaces: Namespaces) -> Select[int]:
    was_called = DeletedVersion.uid.in_(select(VersionUsage.version_uid))
    return select(func.count()).where(*conditions(DeletedVersion, namespaces), was_called)
