"""Posts the end of a container's log to the api from a thread of its own; never fails the work.

Every few seconds and at the end, where there is something new: of a container that is killed, the api keeps what was
posted last. Shared with the trainer's image, hence by the standard library alone.
"""

import http.client
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from finetune_operator.contract.internal_token import token_headers
from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.places import (
    INTERNAL_TOKEN_VARIABLE,
    PROGRESS_LOG_PATH,
    PROGRESS_PATH,
    SECRET_VARIABLES,
)
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.redaction import blanked

INTERVAL_SECONDS = 5.0
POST_TIMEOUT_SECONDS = 5.0


class LogPosts:
    """`read` gives the end of the log, `tell` hears once of each time in which nothing can be posted."""

    def __init__(
        self,
        config: TrainingConfig,
        container: Literal["prepare", "trainer"],
        environment: Mapping[str, str],
        read: Callable[[], str],
        tell: Callable[[str], None],
        interval_seconds: float = INTERVAL_SECONDS,
        other_secrets: Iterable[str | None] = (),
    ) -> None:
        self._job, self._container, self._read, self._tell = config.job, container, read, tell
        self._url = None if config.progress_url is None else config.progress_url + _BELOW
        self._token = environment.get(INTERNAL_TOKEN_VARIABLE)
        self._secrets = [*(environment.get(name) for name in SECRET_VARIABLES), *other_secrets]
        self._interval = interval_seconds
        self._posted: str | None = None
        self._is_failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        if self._url is not None:
            self._thread.start()

    def close(self, wait_seconds: float = 2 * POST_TIMEOUT_SECONDS) -> None:
        """Post what is new, for at most this long; asked again, it does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(wait_seconds)

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            self._post_news()
        self._post_news()

    def _post_news(self) -> None:
        try:
            text = blanked(self._read(), self._secrets)
            if not text or text == self._posted:
                return
            self._post(LogTail.of(self._job, self._container, text, datetime.now(UTC)))
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self._is_failing:
                self._tell(blanked(f"{type(error).__name__}: {error}", self._secrets))
            self._is_failing = True
        else:
            self._posted, self._is_failing = text, False

    def _post(self, tail: LogTail) -> None:
        headers = {"Content-Type": "application/json"} | token_headers(self._token)
        body = tail.model_dump_json(by_alias=True).encode()
        request = urllib.request.Request(str(self._url), data=body, headers=headers, method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=POST_TIMEOUT_SECONDS) as response:  # noqa: S310
            response.read()


_BELOW = PROGRESS_LOG_PATH.removeprefix(PROGRESS_PATH)
