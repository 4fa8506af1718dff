"""What has changed while a page is open: watches with the caller's rights, told as server-sent events.

A stream says which objects have changed and never how they are: the page fetches what it shows anew, by the routes that
made it. Each stream begins with `hello`, after which a page fetches everything, so that no stream need know what an
earlier one has told.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, NamedTuple

from fastapi import Query
from starlette.responses import Response

from finetune_operator.kube.errors import KubeError
from finetune_operator.logs import cause, get_logger
from finetune_operator.web.acting import BATCHES, JOBS, TESTS, VERSIONS, Acting, Kind
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import VisitOf
from finetune_operator.web.ids import NamespaceQuery
from finetune_operator.web.pages import id_of
from finetune_operator.web.problems import FORBIDDEN, Problem
from finetune_operator.web.services import Object, Resources
from finetune_operator.web.streams import EventStream

KINDS = {kind.plural: kind for kind in (JOBS, VERSIONS, TESTS, BATCHES)}
HEARTBEAT_SECONDS = 15.0
MAX_WAITING = 1000
MAX_REMEMBERED = 1000
"""Objects of one watch, the last that have changed."""
HELLO = "event: hello\ndata: {}\n\n"
HEARTBEAT = ": still there\n\n"
MOVING = frozenset({"progress", "cost", "observedGeneration"})
"""Members of a status that change all the time."""

logger = get_logger(__name__)
router = page_router()


class Watched(NamedTuple):
    """One kind in one namespace, or in all of them, from a moment on."""

    kind: Kind
    namespace: str | None
    version: str


class Stamp(NamedTuple):
    """As much of an object as tells whether more than its progress has changed."""

    uid: str
    essence: int


@router.get("/live")
async def live(
    visit: VisitOf, kinds: Annotated[str, Query(max_length=100)], namespace: NamespaceQuery = None
) -> Response:
    """Tells of changes until the API server, the api or the client ends it; the client comes again."""
    asked = tuple(dict.fromkeys(kinds.split()))
    if not asked or (unknown := sorted(set(asked) - set(KINDS))):
        wrong = unknown[0] if asked else "nothing"
        raise Problem(422, "unknown-kind", f"kinds: {wrong} is none of {', '.join(KINDS)}")
    who = visit.caller.name if visit.caller.token is not None else None
    visit.services.streams.require_room(who)
    watched = await _watched(visit.acting, [KINDS[plural] for plural in asked], namespace)
    return EventStream(changes(visit.acting.resources, watched), visit.services.streams, who)


async def changes(resources: Resources, watched: Sequence[Watched]) -> AsyncGenerator[str, None]:
    """Text of the stream. It ends with the first watch that breaks: the next stream begins with the whole present."""
    yield HELLO
    news: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING)
    tasks = [asyncio.create_task(_told(resources, each, news)) for each in watched]
    try:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    text = await news.get()
            except TimeoutError:
                text = HEARTBEAT
            if text is None:
                return
            yield text
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watched(acting: Acting, kinds: Sequence[Kind], namespace: str | None) -> list[Watched]:
    """What of it the caller may see. Raises 403 where that is nothing."""
    if namespace is not None:
        acting.require_served(namespace)
    places = (namespace,) if namespace is not None else acting.services.settings.namespaces or (None,)
    found, refusals = [], []
    for kind in kinds:
        for place in places:
            try:
                found.append(Watched(kind, place, await acting.moment(kind, place)))
            except Problem as problem:
                if problem.status != FORBIDDEN:
                    raise
                refusals.append(problem)
    if not found:
        raise refusals[0]
    return found


async def _told(resources: Resources, watched: Watched, news: asyncio.Queue[str | None]) -> None:
    """One kind's changes, then None, unless nobody reads any more: the queue may be full for ever then."""
    try:
        await _follow(resources, watched, news)
    except Exception:
        logger.exception("watch of a page failed", kind=watched.kind.plural)
    await news.put(None)


async def _follow(resources: Resources, watched: Watched, news: asyncio.Queue[str | None]) -> None:
    """The API server ends each watch now and then, and a new one goes on from there."""
    stamps: dict[str, Stamp] = {}
    version = watched.version
    try:
        while True:
            told = False
            watch = resources.watch(watched.kind.plural, watched.namespace, version)
            async with aclosing(watch) as events:
                async for change, item in events:
                    told, version = True, str(item["metadata"]["resourceVersion"])
                    if change != "BOOKMARK":
                        await news.put(_changed(watched.kind, change, item, stamps))
            if not told:
                return
    except KubeError as error:
        logger.info("watch of a page broke", kind=watched.kind.plural, error=cause(error))


def _changed(kind: Kind, change: str, item: Object, stamps: dict[str, Stamp]) -> str:
    """`progress` where nothing else has changed; of what was not seen before that can't be told."""
    identity = str(id_of(item))
    known, now = stamps.pop(identity, None), _stamp(item)
    if change != "DELETED":
        stamps[identity] = now
    if len(stamps) > MAX_REMEMBERED:
        del stamps[next(iter(stamps))]
    what = "progress" if change == "MODIFIED" and known == now else "state"
    return f"event: changed\ndata: {json.dumps({'kind': kind.plural, 'id': identity, 'what': what})}\n\n"


def _stamp(item: Object) -> Stamp:
    status = {name: value for name, value in item.get("status", {}).items() if name not in MOVING}
    # That there is any progress gives a card its curve.
    essence = json.dumps([item["spec"], status, "progress" in item.get("status", {})], sort_keys=True)
    return Stamp(item["metadata"]["uid"], hash(essence))


PAGE = Page(router)
