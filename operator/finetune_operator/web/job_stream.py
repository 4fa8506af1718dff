"""A training followed until it ends: a watch of one FineTuneJob with the caller's rights, as server-sent events."""

import asyncio
import random
import re
import time
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
from finetune_operator.web.streams import next_or_none

HEARTBEAT_SECONDS = 15.0
BACKOFF_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 30.0
TRIES_BEFORE_READING_ANEW = 3
USEFUL_SECONDS = 1.0
QUIET_SECONDS = 30.0
"""A watch that ends sooner, or sooner than this with nothing told, is a failure, however cleanly it ends."""
PRESENT = ""
"""From where a watch begins with the state that is there, whatever the API server has forgotten."""
UNAUTHORIZED = 401

Change = tuple[str, Object]
logger = get_logger(__name__)


def known_version(body: Object, last_event_id: str | None) -> str | None:
    """The state that a client knows, None for one that can't be of this training's past.

    Bookmarks may have moved an honest client's id beyond the present state; it is told that state once more then.
    """
    if last_event_id is None or not re.fullmatch("[0-9]{1,20}", last_event_id):
        return None
    number = int(last_event_id)
    return str(number) if 0 < number <= int(body["metadata"]["resourceVersion"]) else None


class Follower:
    """One client's view of one training; `last_version` is what the client knows already, None for nothing."""

    def __init__(self, acting: Acting, body: Object, last_version: str | None) -> None:
        self._resources = acting.resources
        self._own_token = acting.caller.token is not None
        self._found = id_of(body)
        self._uid = body["metadata"]["uid"]
        self._untold = body if last_version is None else None
        self._version = last_version or str(body["metadata"]["resourceVersion"])
        self._from = self._version
        self._last: JobEntry | None = None
        self._failures = 0
        self._pause = 0.0
        self._ended = False

    async def events(self) -> AsyncGenerator[str, None]:
        """Text of the stream until the training has ended or is gone, or the caller may not see it any more."""
        try:
            if self._untold is not None:
                for text in self._told(self._untold):
                    yield text
            while not self._ended:
                for texts in (self._watched(), self._paused()):
                    async with aclosing(texts):
                        async for text in texts:
                            yield text
        except KubeError as error:
            problem = refused(error, self._found.namespace, own_token=self._own_token)
            yield failed(problem_body(problem.status, problem.kind, problem.detail))

    async def _watched(self) -> AsyncGenerator[str, None]:
        """Of one watch, which the API server ends now and then; one that breaks is not the end."""
        watch = self._resources.watch(JOBS.plural, self._found.namespace, self._from, name=self._found.name)
        began, told, self._pause = time.monotonic(), False, 0.0
        try:
            async with aclosing(with_pauses(watch, HEARTBEAT_SECONDS)) as changes:
                async for change in changes:
                    told = told or change is not None
                    for text in self._seen(*change) if change else [heartbeat(self._version)]:
                        yield text
                    if self._ended:
                        return
            self._count(time.monotonic() - began, told=told)
            if self._failures and self._failures % TRIES_BEFORE_READING_ANEW == 0:
                async for text in self._read_anew():
                    yield text
        except (Gone, Unavailable) as error:
            if error.status == UNAUTHORIZED:
                raise
            logger.info("watch of a training broke", job=str(self._found), error=cause(error))
            self._count(time.monotonic() - began, told=told, error=error)
            if isinstance(error, Gone):
                self._from = PRESENT
            if isinstance(error, Gone) or self._failures % TRIES_BEFORE_READING_ANEW == 0:
                async for text in self._read_anew():
                    yield text

    def _count(self, seconds: float, *, told: bool, error: KubeError | None = None) -> None:
        """Only a watch that was of use begins the count of failures anew; a state read in between does not."""
        useful = seconds >= QUIET_SECONDS or (told and seconds >= USEFUL_SECONDS)
        self._failures = (0 if useful else self._failures) + (0 if useful and error is None else 1)
        grown = BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10) if self._failures else 0.0
        asked = (error.retry_after_seconds if error else None) or 0.0
        # So that the followers that an API server lost together do not come back together.
        self._pause = max(asked, min(grown, BACKOFF_MAX_SECONDS)) * random.uniform(1.0, 1.25)  # noqa: S311 - jitter

    async def _paused(self) -> AsyncGenerator[str, None]:
        """Heartbeats until it is time to ask again."""
        until = time.monotonic() + self._pause
        while not self._ended and (left := until - time.monotonic()) > 0:
            yield heartbeat(self._version)
            await asyncio.sleep(min(left, HEARTBEAT_SECONDS))

    async def _read_anew(self) -> AsyncGenerator[str, None]:
        """The state that is there now."""
        try:
            body = await self._resources.get(JOBS.plural, self._found.namespace, self._found.name)
        except NotFound:
            yield self._gone(self._version)
            return
        except Unavailable as away:
            if away.status == UNAUTHORIZED:
                raise
            self._pause = max(self._pause, away.retry_after_seconds or 0.0)
            return
        for text in self._told(body):
            yield text
        if self._from != PRESENT:
            self._from = self._version

    def _seen(self, kind: str, item: Object) -> Iterator[str]:
        self._from = str(item["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            self._version = self._from
        elif kind == "DELETED":
            yield self._gone(self._from)
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
                coming = coming or asyncio.create_task(next_or_none(changes))
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
