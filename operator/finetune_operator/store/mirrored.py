"""Custom resources as rows: what lists are made of, and what SQL clients read. The cluster's are the truth."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Delete,
    Select,
    delete,
    false,
    func,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.exc import DataError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from finetune_operator.logs import cause, get_logger
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import DeletedTraining, Deployment, MirroredResource

Object = dict[str, Any]
JOBS = "finetunejobs"
INSERTED_AT_ONCE = 200
"""SQLite takes 32,766 values in a statement."""
logger = get_logger(__name__)


Before = Mapping[tuple[str, str], int]
"""Resource versions by namespace and name, as they were kept before a list began."""
NOTHING: Before = MappingProxyType({})


class Facts(NamedTuple):
    """What lists are filtered by."""

    model: str | None = None
    state: str | None = None
    philosopher: str | None = None
    domain: str | None = None
    job_uid: str | None = None
    """Of a version: the training that made it."""
    attached: str | None = None
    """What a client of OpenAI's interface noted, as JSON with sorted keys."""
    engine: str | None = None
    """Of a version: what has it loaded."""
    requested: str | None = None
    """Of a version: the state that somebody asked for."""
    currency: str | None = None
    amount_micros: int | None = None
    """In millionths: what a training has spent, or what a million tokens of a version cost."""
    is_unpriced: bool = False
    """Of a training: whether it takes what has no price."""
    is_over_budget: bool = False
    """Of a training: whether it was stopped for that."""
    win_rate: float | None = None
    """Of a version."""


LATER_FACTS = Facts._fields[Facts._fields.index("requested") :]
"""Which an api of an older release does not write with its rows, nor knew of when it wrote those that are there."""


class Change(NamedTuple):
    """One change of what is active, as a version's history has it."""

    version_uid: str
    time: datetime
    state: str
    namespace: str
    model: str
    model_version: str
    who: str | None
    why: str
    previous: str | None


class Row(NamedTuple):
    """One resource as it is kept."""

    plural: str
    body: Object
    facts: Facts
    changes: tuple[Change, ...] = ()


class Position(NamedTuple):
    """Where a page begins: after this one."""

    created: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Wanted:
    """Which resources of a kind; None is no filter. Philosopher and domain of a version are those of its training."""

    plural: str
    namespaces: tuple[str, ...] | None = None
    model: str | None = None
    states: tuple[str, ...] = ()
    """Any of these; all where there are none."""
    philosopher: str | None = None
    domain: str | None = None
    attached: tuple[str, ...] = field(default=())
    """Pieces of JSON, each of which has to be there."""
    origins_in: tuple[str, ...] | None = None
    """Of which namespaces' trainings philosopher and domain may be told; None for all."""


class Found(NamedTuple):
    """Bodies, the newest first, and how many there are of all that is wanted."""

    bodies: tuple[Object, ...]
    total: int


async def known(engine: AsyncEngine, plural: str, namespace: str | None) -> dict[tuple[str, str], int]:
    """Resource versions of what is kept, by namespace and name."""
    query = select(MirroredResource.namespace, MirroredResource.name, MirroredResource.resource_version)
    query = query.where(MirroredResource.plural == plural)
    if namespace is not None:
        query = query.where(MirroredResource.namespace == namespace)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return {(row.namespace, row.name): row.resource_version for row in rows}


async def keep(engine: AsyncEngine, rows: Iterable[Row], before: Before = NOTHING) -> None:
    """Newer states replace older ones; an older one than what is there changes nothing, whoever sends it.

    But for those of a list that began after `before` was read: versions only go back where the cluster was restored or
    is another one, and then the list is right. The same state is written again where an api of an older release wrote
    it, without what this one knows of it.
    """
    pending = list(rows)
    for begin in range(0, len(pending), INSERTED_AT_ONCE):
        await _keep_possible(engine, pending[begin : begin + INSERTED_AT_ONCE], before)


async def drop(engine: AsyncEngine, plural: str, namespace: str, name: str, uid: str) -> None:
    """Exactly this one is gone, and no later one of the same name."""
    gone = _key(plural, namespace, name) & (MirroredResource.uid == uid)
    async with engine.begin() as connection:
        await connection.execute(delete(MirroredResource).where(gone))


async def drop_others(
    engine: AsyncEngine,
    plural: str,
    namespace: str | None,
    present: Collection[tuple[str, str]],
    until: int,
    before: Before = NOTHING,
) -> None:
    """What a list of the resource version `until` did not have is gone, but for what came later.

    What is as it was `before` the list began did not come later, whatever its version.
    """
    kept = await known(engine, plural, namespace)
    missing = ((key, version) for key, version in kept.items() if key not in present)
    gone = [(*key, version) for key, version in missing if version <= until or before.get(key) == version]
    async with engine.begin() as connection:
        for begin in range(0, len(gone), INSERTED_AT_ONCE):
            await connection.execute(_deletion(plural, gone[begin : begin + INSERTED_AT_ONCE]))


async def settle(engine: AsyncEngine) -> None:
    """Have PostgreSQL know what there is, as soon as many rows have come.

    It finds that out by itself minutes later. Until then it reads all of a table for each row of another, and looks
    at each row that an index has told of already.
    """
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await alone.execute(text(f"VACUUM (ANALYZE) {MirroredResource.__tablename__}"))


async def page(engine: AsyncEngine, wanted: Wanted, after: Position | None, limit: int) -> Found:
    """At most `limit` after a place. What is chosen by is in an index, so that only the page's bodies are read."""
    chosen = _conditions(wanted)
    order = MirroredResource.created, MirroredResource.namespace, MirroredResource.name
    keys = (
        select(*order, MirroredResource.uid).where(*chosen).order_by(*(column.desc() for column in order)).limit(limit)
    )
    if after is not None:
        keys = keys.where(tuple_(*order) < tuple_(*after))
    # An index has each state in the order of pages; of several at once it would have to be sorted, or all be read.
    of_states = [MirroredResource.state == state for state in wanted.states] or [true()]
    of_any = MirroredResource.state.in_(wanted.states) if wanted.states else true()
    count = select(func.count()).select_from(MirroredResource).where(*chosen, of_any)
    async with engine.connect() as connection:
        total = (await connection.execute(count)).scalar_one()
        lists = [(await connection.execute(keys.where(of_state))).all() for of_state in of_states]
        found = sorted((row for rows in lists for row in rows), key=lambda row: tuple(row[:3]), reverse=True)[:limit]
        bodies = await _bodies(connection, wanted.plural, [row.uid for row in found])
    return Found(tuple(bodies[key] for row in found if (key := (row.namespace, row.name)) in bodies), total)


async def answering(
    engine: AsyncEngine, plural: str, models: Collection[tuple[str, str]], requested: str | None = None
) -> list[Object]:
    """Those of these models, given with their namespaces, that an engine has loaded, or that `requested` was asked of.

    Few, however many there are.
    """
    is_requested = MirroredResource.requested == requested if requested is not None else false()
    columns = MirroredResource.namespace, MirroredResource.model
    query = select(*columns, MirroredResource.body).where(
        MirroredResource.plural == plural,
        MirroredResource.namespace.in_({namespace for namespace, _ in models}),
        MirroredResource.model.in_({model for _, model in models}),
        MirroredResource.engine.is_not(None) | is_requested,
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return [row.body for row in rows if (row.namespace, row.model) in models]


async def origins(
    engine: AsyncEngine, plural: str, uids: Collection[str], namespaces: tuple[str, ...] | None
) -> dict[str, tuple[str | None, str | None]]:
    """Philosopher and domain of these trainings, deleted or not, in these namespaces; None for all."""
    there = _origins(MirroredResource, uids, namespaces).where(MirroredResource.plural == plural)
    query = union_all(there, _origins(DeletedTraining, uids, namespaces))
    async with engine.connect() as connection:
        return {row.uid: (row.philosopher, row.domain) for row in (await connection.execute(query)).all()}


def _origins(
    table: type[MirroredResource] | type[DeletedTraining], uids: Collection[str], namespaces: tuple[str, ...] | None
) -> Select[str, str | None, str | None]:
    query = select(table.uid, table.philosopher, table.domain).where(table.uid.in_(uids))
    return query if namespaces is None else query.where(table.namespace.in_(namespaces))


async def namespace_of(engine: AsyncEngine, plural: str, uid: str, namespaces: tuple[str, ...]) -> str | None:
    """Where the resource of this uid is, of these namespaces, or of all where there are none."""
    query = select(MirroredResource.namespace).where(MirroredResource.plural == plural, MirroredResource.uid == uid)
    if namespaces:
        query = query.where(MirroredResource.namespace.in_(namespaces))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one_or_none()


async def _keep_possible(engine: AsyncEngine, rows: Sequence[Row], before: Before) -> None:
    """One that the database does not take is left out, and logged, so that the others of its kind are kept."""
    try:
        async with engine.begin() as connection:
            await _keep(connection, rows, before)
    except DataError as error:
        if len(rows) == 1:
            metadata = rows[0].body["metadata"]
            named = {"plural": rows[0].plural, "namespace": metadata["namespace"], "name": metadata["name"]}
            logger.error("mirror left out what the database does not take", **named, error=cause(error.orig or error))
            return
        for row in rows:
            await _keep_possible(engine, [row], before)


async def _keep(connection: AsyncConnection, rows: Sequence[Row], before: Before) -> None:
    values = [_values(row) for row in rows]
    held = ((each, before.get((each["namespace"], each["name"]), 0)) for each in values)
    if ahead := [(each["namespace"], each["name"], was) for each, was in held if was > each["resource_version"]]:
        await connection.execute(_deletion(values[0]["plural"], ahead))
        # A cluster that was restored begins anew: what was known of a later state is not what was spent.
        gone = {(each["namespace"], each["name"]) for each in values} & {place[:2] for place in ahead}
        uids = [each["uid"] for each in values if (each["namespace"], each["name"]) in gone]
        await connection.execute(delete(DeletedTraining).where(DeletedTraining.uid.in_(uids)))
    upsert = upsert_dialect(connection.dialect).insert(MirroredResource)
    mutable = ("uid", "resource_version", "created", *Facts._fields, "body")
    is_later = MirroredResource.resource_version < upsert.excluded.resource_version
    is_same = (MirroredResource.uid == upsert.excluded.uid) & (
        MirroredResource.resource_version == upsert.excluded.resource_version
    )
    is_lacking = or_(
        *(getattr(MirroredResource, name).is_distinct_from(getattr(upsert.excluded, name)) for name in LATER_FACTS)
    )
    is_successor = (MirroredResource.uid != upsert.excluded.uid) & (MirroredResource.created <= upsert.excluded.created)
    statement = upsert.on_conflict_do_update(
        index_elements=["plural", "namespace", "name"],
        set_={name: getattr(upsert.excluded, name) for name in mutable},
        where=is_later | is_successor | (is_same & is_lacking),
    )
    await connection.execute(statement, values)
    if changes := [change._asdict() for row in rows for change in row.changes]:
        history = upsert_dialect(connection.dialect).insert(Deployment).on_conflict_do_nothing()
        await connection.execute(history, changes)


def _deletion(plural: str, versions: Sequence[tuple[str, str, int]]) -> Delete:
    """Of exactly these versions, given with namespace and name."""
    columns = MirroredResource.namespace, MirroredResource.name, MirroredResource.resource_version
    return delete(MirroredResource).where(MirroredResource.plural == plural, tuple_(*columns).in_(versions))


def _values(row: Row) -> Object:
    metadata = row.body["metadata"]
    return {
        "plural": row.plural,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resource_version": int(metadata["resourceVersion"]),
        "created": metadata.get("creationTimestamp") or "",
        "body": row.body,
        **row.facts._asdict(),
    }


def _key(plural: str, namespace: str, name: str) -> ColumnElement[bool]:
    return (
        (MirroredResource.plural == plural)
        & (MirroredResource.namespace == namespace)
        & (MirroredResource.name == name)
    )


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions = [MirroredResource.plural == wanted.plural]
    if wanted.namespaces is not None:
        conditions.append(MirroredResource.namespace.in_(wanted.namespaces))
    if wanted.model is not None:
        conditions.append(MirroredResource.model == wanted.model)
    origin = {"philosopher": wanted.philosopher, "domain": wanted.domain}
    chosen = {name: value for name, value in origin.items() if value is not None}
    if chosen and wanted.plural == JOBS:
        conditions += [getattr(MirroredResource, name) == value for name, value in chosen.items()]
    elif chosen:
        conditions.append(MirroredResource.job_uid.in_(_trainings(wanted.origins_in, chosen)))
    # LIKE would take upper case for lower case on SQLite.
    attached = MirroredResource.attached
    conditions += [attached.is_not(None) & (func.replace(attached, piece, "") != attached) for piece in wanted.attached]
    return conditions


def _trainings(namespaces: tuple[str, ...] | None, chosen: dict[str, str]) -> CompoundSelect[str]:
    """Deleted or not."""
    there = _chosen_trainings(MirroredResource, namespaces, chosen).where(MirroredResource.plural == JOBS)
    return union_all(there, _chosen_trainings(DeletedTraining, namespaces, chosen))


def _chosen_trainings(
    table: type[MirroredResource] | type[DeletedTraining], namespaces: tuple[str, ...] | None, chosen: dict[str, str]
) -> Select[str]:
    query = select(table.uid).where(*(getattr(table, name) == value for name, value in chosen.items()))
    return query if namespaces is None else query.where(table.namespace.in_(namespaces))


async def _bodies(connection: AsyncConnection, plural: str, uids: Sequence[str]) -> dict[tuple[str, str], Object]:
    # By uid alone: SQLite looks for pairs of names, and for a kind, by reading all of the kind.
    columns = MirroredResource.plural, MirroredResource.namespace, MirroredResource.name, MirroredResource.body
    rows = (await connection.execute(select(*columns).where(MirroredResource.uid.in_(uids)))).all()
    return {(row.namespace, row.name): row.body for row in rows if row.plural == plural}
