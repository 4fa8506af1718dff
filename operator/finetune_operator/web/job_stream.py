"""A training followed until it ends: a watch of one FineTuneJob with the caller's rights, as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from finetune_operator.kube.errors import Gone, KubeError, NotFound, Unavailable
from finetune_operator.logs import cause, get_logger
from finetune_operator.web.acting import JOBS, Acting
from finetune_operator.web.job_events import deleted, failed, heartbeat, next_event
from finetune_operator.web.job_views import JobEntry
from finetune_operator.web.pages import id_of
from finetune_operator.web.problems import problem_body
from finetune_operator.web.refusals import refused
from finetune_operator.web.services import Object

HEARTBEAT_SECONDS = 15.0
BACKOFF_SECONDS = 2.0
TRIES_BEFORE_READING_ANEW = 3
UNAUTHORIZED = 401

Change = tuple[str, Object]
logger = get_logger(__name__)


class Follower:
    """One client's view of one training; `last_version` is what the client knows already, None for nothing."""

    def __init__(self, acting: Acting, body: Object, last_version: str | None) -> None:
        self._resources = acting.resources
        self._own_token = acting.caller.token is not None
        self._found = id_of(body)
        self._uid = body["metadata"]["uid"]
        self._untold = body if last_version is None else None
        self._version = last_version or str(body["metadata"]["resourceVersion"])
        self._last: JobEntry | None = None
        self._failures = 0
        self._ended = False

    async def events(self) -> AsyncGenerator[str, None]:
        """Text of the stream until the training has ended or is gone, or the caller may not see it any more."""
        try:
            if self._untold is not None:
                for text in self._told(self._untold):
                    yield text
            while not self._ended:
                async with aclosing(self._watched()) as texts:
                    async for text in texts:
                        yield text
        except KubeError as error:
            problem = refused(error, self._found.namespace, own_token=self._own_token)
            yield failed(problem_body(problem.status, problem.kind, problem.detail))

    async def _watched(self) -> AsyncGenerator[str, None]:
        """Of one watch, which the API server ends now and then; one that breaks is not the end."""
        watch = self._resources.watch(JOBS.plural, self._found.namespace, self._version, name=self._found.name)
        try:
            async with aclosing(with_pauses(watch, HEARTBEAT_SECONDS)) as changes:
                async for change in changes:
                    for text in self._seen(*change) if change else [heartbeat(self._version)]:
                        yield text
                    if self._ended:
                        return
        except (Gone, Unavailable) as error:
            if error.status == UNAUTHORIZED:
                raise
            logger.info("watch of a training broke", job=str(self._found), error=cause(error))
            for text in await self._recovered(error):
                yield text

    async def _recovered(self, error: KubeError) -> list[str]:
        """Try again from the same state; where that is too old, or does not help, from the state that is there now."""
        self._failures += 1
        if isinstance(error, Unavailable) and self._failures < TRIES_BEFORE_READING_ANEW:
            await asyncio.sleep(BACKOFF_SECONDS * self._failures)
            return [heartbeat(self._version)]
        self._failures = 0
        try:
            return list(self._told(await self._resources.get(JOBS.plural, self._found.namespace, self._found.name)))
        except NotFound:
            return [self._gone(self._version)]
        except Unavailable as away:
            if away.status == UNAUTHORIZED:
                raise
            await asyncio.sleep(BACKOFF_SECONDS)
            return [heartbeat(self._version)]

    def _seen(self, kind: str, item: Object) -> Iterator[str]:
        self._failures = 0
        if kind == "BOOKMARK":
            self._version = str(item["metadata"]["resourceVersion"])
        elif kind == "DELETED":
            yield self._gone(str(item["metadata"]["resourceVersion"]))
        else:
            yield from self._told(item)

    def _told(self, body: Object) -> Iterator[str]:
        version = str(body["metadata"]["resourceVersion"])
        if body["metadata"]["uid"] != self._uid:
            yield self._gone(version)
            return
        event = next_event(body, self._last)
        self._version = version
        if event is not None:
            self._last, self._ended = event.entry, event.is_last
            yield event.text()

    def _gone(self, version: str) -> str:
        self._ended = True
        return deleted(self._found, version)


async def with_pauses(changes: AsyncGenerator[Change, None], seconds: float) -> AsyncGenerator[Change | None, None]:
    """What comes, and None each time that nothing has come for so long."""
    coming: asyncio.Task[Change | None] | None = None
    async with aclosing(changes):
        try:
            while True:
                coming = coming or asyncio.create_task(_next(changes))
                done, _ = await asyncio.wait({coming}, timeout=seconds)
                if not done:
                    yield None
                    continue
                change, coming = coming.result(), None
                if change is None:
                    return
                yield change
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)


async def _next(changes: AsyncGenerator[Change, None]) -> Change | None:
    return await anext(changes, None)
