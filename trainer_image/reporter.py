"""Posts a training's progress to the api from a thread of its own; never slows or fails the training.

While the api is away the series is kept: at most `MOST_POINTS` of it, evenly thinned when that is full, and the newest
always.
"""

import http.client
import threading
import urllib.request
from datetime import datetime, timedelta

from failures import log

from finetune_operator.contract.internal_token import token_headers
from finetune_operator.contract.places import PROGRESS_BATCH_PATH, PROGRESS_PATH
from finetune_operator.contract.training import PROGRESS_MAX_PER_BATCH, Progress, ProgressBatch

POST_TIMEOUT_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 30.0
MOST_POINTS = 2000


class Series:
    """What is yet to be posted: points at least `interval_seconds` apart, and the newest however near it is.

    Full, it drops every second point and from then on keeps half as many, until it was emptied.
    """

    def __init__(self, interval_seconds: float, most_points: int = MOST_POINTS) -> None:
        self._interval, self._most = timedelta(seconds=interval_seconds), most_points
        self._spacing = self._interval
        self._kept: list[Progress] = []
        self._newest: Progress | None = None
        self._kept_until: datetime | None = None

    def __bool__(self) -> bool:
        return bool(self._kept) or self._newest is not None

    def add(self, point: Progress) -> None:
        """A point of the same step replaces the one before: it knows more."""
        newest = self._newest
        is_next = newest is not None and newest.step != point.step
        if newest and is_next and (self._kept_until is None or newest.time - self._kept_until >= self._spacing):
            self._kept.append(newest)
            self._kept_until = newest.time
            self._thin()
        self._newest = point

    def take(self, most: int) -> tuple[Progress, ...]:
        """The oldest points, which are the caller's until it puts them back."""
        taken, self._kept = self._kept[:most], self._kept[most:]
        if self._newest and len(taken) < most:
            taken.append(self._newest)
            self._kept_until, self._newest = self._newest.time, None
        if not self:
            self._spacing = self._interval
        return tuple(taken)

    def put_back(self, points: tuple[Progress, ...]) -> None:
        """What could not be posted comes first again."""
        self._kept = [*points, *self._kept]
        self._thin()

    def _thin(self) -> None:
        while len(self._kept) > self._most:
            self._kept = [*self._kept[:-1:2], self._kept[-1]]
            self._spacing = 2 * max(self._spacing, timedelta(milliseconds=1))


class Reporter:
    """Posts what gathered, at most once per interval."""

    def __init__(self, url: str, token: str | None, interval_seconds: float) -> None:
        self._url, self._token = url + PROGRESS_BATCH_PATH.removeprefix(PROGRESS_PATH), token
        self._interval = interval_seconds
        self._changed = threading.Condition()
        self._series = Series(interval_seconds)
        # Not the condition: between two posts no step has to wake this thread.
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def offer(self, progress: Progress) -> None:
        """Add what waits to be posted; returns at once."""
        with self._changed:
            self._series.add(progress)
            self._changed.notify()

    def close(self, wait_seconds: float = POST_TIMEOUT_SECONDS) -> None:
        """Post what still waits, without the interval, for at most this long."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(wait_seconds)

    def _run(self) -> None:
        failures = 0
        while points := self._next():
            error = self._post(points)
            if error is None:
                if failures:
                    log("progress is reported again", failed_posts=failures, points=len(points))
                failures = 0
                pause = self._interval
            else:
                if not failures:
                    log("progress can't be reported; the training goes on", url=self._url, error=error)
                failures += 1
                pause = min(LONGEST_RETRY_SECONDS, self._interval * 2 ** min(failures, 10))
                with self._changed:
                    self._series.put_back(points)
            if error is not None and self._closing.is_set():
                return
            if len(points) < PROGRESS_MAX_PER_BATCH or error is not None:
                self._closing.wait(pause)

    def _next(self) -> tuple[Progress, ...]:
        """Waits for something to post; nothing once all is posted and the training over."""
        with self._changed:
            self._changed.wait_for(lambda: self._series or self._closing.is_set())
            return self._series.take(PROGRESS_MAX_PER_BATCH)

    def _post(self, points: tuple[Progress, ...]) -> str | None:
        """The error as text, or None."""
        body = ProgressBatch(points=points).model_dump_json(by_alias=True).encode()
        try:
            headers = {"Content-Type": "application/json"} | token_headers(self._token)
            request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310
            with urllib.request.urlopen(request, timeout=POST_TIMEOUT_SECONDS) as response:  # noqa: S310
                response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        return None
