"""The resources of the cluster in the api's own tables, followed by watches with the api's own rights.

A list of a hundred thousand trainings is no request to the API server: it sorts by name and finds by nothing. Who may
see what is asked of RBAC with each list, as for all that is in the database. As long as a watch does not stand, lists
are read from the API server with the caller's rights, as without this.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import UsageReport
from finetune_operator.kube.errors import Gone
from finetune_operator.logs import cause, get_logger
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store import mirrored, usage
from finetune_operator.store.mirrored import JOBS, Change, Facts, Row, Wanted
from finetune_operator.web.batch_usage import usage_of
from finetune_operator.web.charges import token_charge, training_charge
from finetune_operator.web.job_views import number, status_of
from finetune_operator.web.lists import slim
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.openai_api.views import metadata_of

VERSIONS, TESTS, BATCHES = "modelversions", "abtests", "batchinferences"
PLURALS = (JOBS, VERSIONS, TESTS, BATCHES)
BACKOFF_SECONDS, BACKOFF_MAX_SECONDS = 1.0, 30.0
STEADY_SECONDS = 30.0
"""A watch that stood so long was one; connecting to an API server that is away takes less to fail."""
RELIST_SECONDS = 3600.0
MANY = 1000
"""New rows, after which the database does well to look at what it has."""

Object = dict[str, Any]
logger = get_logger(__name__)


class Source(Protocol):
    """The part of `KubeClient` that is followed."""

    def versioned_chunks(
        self, plural: str, namespace: str | None
    ) -> AsyncGenerator[tuple[tuple[Object, ...], str], None]: ...

    def watch(
        self, plural: str, namespace: str | None, resource_version: str
    ) -> AsyncGenerator[tuple[str, Object], None]: ...


class Mirroring:
    """One watch for each kind and namespace that is served.

    What is kept of another namespace belongs to whichever api serves that: several share a database.
    """

    def __init__(self, engine: AsyncEngine, source: Source, namespaces: tuple[str, ...]) -> None:
        self._engine = engine
        self._source = source
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._standing: set[tuple[str, str | None]] = set()
        self._versions: dict[tuple[str, str | None], str] = {}
        self._due: dict[tuple[str, str | None], float] = {}

    async def run(self) -> None:
        """Until cancelled. However it ends, nobody takes the tables for current after it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for plural in PLURALS:
                    for namespace in self._namespaces:
                        tasks.create_task(self._follow(plural, namespace))
        finally:
            self._standing.clear()

    def is_current(self, *plurals: str) -> bool:
        """Whether the tables have all of these kinds as they are now."""
        return all((plural, namespace) in self._standing for plural in plurals for namespace in self._namespaces)

    async def note(self, plural: str, body: Object) -> None:
        """What the API server has just answered a write with, so that whoever wrote sees it in the next list."""
        if plural in PLURALS:
            with self._outdated_by_failures(plural, body["metadata"]["namespace"]):
                await mirrored.keep(self._engine, rows_of(plural, [body]))

    async def note_deleted(self, plural: str, body: Object) -> None:
        """As `note`; what has finalizers is not gone yet."""
        metadata = body["metadata"]
        if plural in PLURALS and not metadata.get("finalizers"):
            with self._outdated_by_failures(plural, metadata["namespace"]):
                await mirrored.drop(self._engine, plural, metadata["namespace"], metadata["name"], metadata["uid"])

    @contextmanager
    def _outdated_by_failures(self, plural: str, namespace: str) -> Iterator[None]:
        """What was written is in the cluster all the same: lists come from there until the kind is listed anew."""
        try:
            yield
        except SQLAlchemyError as error:
            logger.warning("mirror not written", plural=plural, namespace=namespace, error=cause(error))
            self._standing -= {(plural, namespace), (plural, None)}

    async def _follow(self, plural: str, namespace: str | None) -> None:
        key, pause = (plural, namespace), BACKOFF_SECONDS
        while True:
            begun: float | None = None
            broken: Exception | None = None
            try:
                if self._is_due(key):
                    self._versions[key] = await self._listed(plural, namespace)
                    self._due[key] = time.monotonic() + RELIST_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                    self._standing.add(key)
                begun = time.monotonic()
                await self._watched(plural, namespace)
            except Exception as error:  # noqa: BLE001 - the boundary of this kind: reported, then tried again
                broken = error
                logger.warning("mirror interrupted", plural=plural, namespace=namespace, error=cause(error))
            stood_seconds = time.monotonic() - begun if begun is not None else 0.0
            if isinstance(broken, Gone) or (broken and stood_seconds < STEADY_SECONDS):
                # Without a watch the tables grow old, and lists are read from the API server.
                self._standing.discard(key)
            # After a steady one it goes on where it was: nothing is missed, and not all objects are read anew.
            if stood_seconds >= (STEADY_SECONDS if broken else BACKOFF_SECONDS):
                pause = BACKOFF_SECONDS
                continue
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(BACKOFF_MAX_SECONDS, pause * 2) if broken else BACKOFF_SECONDS

    def _is_due(self, key: tuple[str, str | None]) -> bool:
        """Whether a list is to be read: at first, after failures, and now and then for what events did not tell.

        Such as a row that another api wrote late, of what this one had already dropped.
        """
        return key not in self._standing or time.monotonic() >= self._due[key]

    async def _listed(self, plural: str, namespace: str | None) -> str:
        before = await mirrored.known(self._engine, plural, namespace)
        present: set[tuple[str, str]] = set()
        version = "0"
        async with aclosing(self._source.versioned_chunks(plural, namespace)) as chunks:
            async for items, version in chunks:  # noqa: B007 - the last one's is used
                await self._tell_usage(plural, items)
                await mirrored.keep(self._engine, rows_of(plural, items), before)
                present |= {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
        await mirrored.drop_others(self._engine, plural, namespace, present, int(version), before)
        # Of the first list any row may be new: what an api of an older release wrote has been completed.
        new = present - before.keys() if (plural, namespace) in self._due else present
        if len(new) >= MANY:
            await mirrored.settle(self._engine)
        return version

    async def _watched(self, plural: str, namespace: str | None) -> None:
        """Until the API server ends the watch, or a new list is due; what was seen is where the next one begins."""
        key = plural, namespace
        async with aclosing(self._source.watch(plural, namespace, self._versions[key])) as changes:
            async for kind, item in changes:
                metadata = item["metadata"]
                if kind == "DELETED":
                    await mirrored.drop(self._engine, plural, metadata["namespace"], metadata["name"], metadata["uid"])
                elif kind != "BOOKMARK":
                    await self._tell_usage(plural, [item])
                    await mirrored.keep(self._engine, rows_of(plural, [item]))
                self._versions[key] = metadata["resourceVersion"]
                if self._is_due(key):
                    return

    async def _tell_usage(self, plural: str, items: Iterable[Object]) -> None:
        """Of batch inferences that have ended, before they are kept: nothing but this tells what they took."""
        if plural == BATCHES:
            await usage.record(self._engine, *_usage_of(items))


def _usage_of(batches: Iterable[Object]) -> Iterator[UsageReport]:
    for batch in batches:
        try:
            told = usage_of(batch)
        except (ValueError, LookupError, TypeError) as error:
            named = {"namespace": batch["metadata"]["namespace"], "name": batch["metadata"]["name"]}
            logger.error("usage of a batch left out, which is not understood", **named, error=cause(error))
            continue
        if told is not None:
            yield told


def rows_of(plural: str, items: Iterable[Object]) -> list[Row]:
    """Of those that this release understands; each other one is logged."""
    rows = []
    for item in items:
        try:
            rows.append(row_of(plural, item))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others are kept
            named = {"plural": plural, "namespace": item["metadata"]["namespace"], "name": item["metadata"]["name"]}
            logger.error("mirror left out what it does not understand", **named, error=cause(error))
    return rows


def row_of(plural: str, body: Object) -> Row:
    """As it is kept."""
    body = _without_nul(body)
    return Row(plural, slim(body), facts_of(plural, body), _changes(body) if plural == VERSIONS else ())


def _without_nul(value: Any) -> Any:
    """PostgreSQL takes every character but this one."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return [_without_nul(each) for each in value] if isinstance(value, list) else value


def facts_of(plural: str, body: Object) -> Facts:
    """What lists are filtered by, of the raw object."""
    spec, status = body["spec"], body.get("status") or {}
    if plural == JOBS:
        ratings = spec.get("dataset", {}).get("ratings") or {}
        return Facts(
            model=spec.get("model"),
            state=status_of(body).value,
            philosopher=ratings.get("philosopher"),
            domain=ratings.get("domain"),
            attached=_attached(body),
            **training_charge(body)._asdict(),
        )
    if plural == VERSIONS:
        return Facts(
            model=spec.get("model"),
            state=status.get("state"),
            job_uid=(spec.get("lineage") or {}).get("jobUid"),
            engine=status.get("engine"),
            requested=spec.get("state"),
            win_rate=number((status.get("metrics") or {}).get("winRate")),
            **token_charge(body)._asdict(),
        )
    if plural == BATCHES:
        return Facts(model=spec["modelVersion"].rpartition("-v")[0], state=status.get("phase"))
    return Facts(model=spec.get("model"), state=status.get("phase"))


def is_wanted(wanted: Wanted, body: Object, origins: Mapping[str, tuple[str | None, str | None]]) -> bool:
    """The same choice as the tables make, of an object as the API server tells it."""
    facts = facts_of(wanted.plural, body)
    philosopher, domain = facts.philosopher, facts.domain
    if facts.job_uid is not None:
        philosopher, domain = origins.get(facts.job_uid, (None, None))
    return (
        (wanted.model is None or facts.model == wanted.model)
        and (not wanted.states or facts.state in wanted.states)
        and (wanted.philosopher is None or philosopher == wanted.philosopher)
        and (wanted.domain is None or domain == wanted.domain)
        and all(piece in (facts.attached or "") for piece in wanted.attached)
    )


def _attached(body: Object) -> str | None:
    """In one spelling, so that a piece of it can be looked for."""
    return json.dumps(noted, sort_keys=True) if (noted := metadata_of(body)) else None


def _changes(body: Object) -> tuple[Change, ...]:
    if not (body.get("status") or {}).get("history"):
        return ()
    version = parsed(ModelVersion, body)
    metadata = version.metadata
    return tuple(
        Change(
            version_uid=metadata.uid,
            time=entry.time,
            state=entry.state.value,
            namespace=metadata.namespace,
            model=version.spec.model,
            model_version=metadata.name,
            who=entry.who,
            why=entry.why,
            previous=entry.previous,
        )
        for entry in version.status.history
    )
