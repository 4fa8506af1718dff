"""Posts the progress of a container's work to the api; never slows or fails the work."""

from collections.abc import Iterable

import aiohttp

from finetune_operator.contract.training import PROGRESS_MAX_PER_BATCH, Progress, ProgressBatch
from finetune_operator.logs import cause, get_logger

TIMEOUT_SECONDS = 5.0

logger = get_logger(__name__)


class Reporter:
    """While the api is away, the newest measurements wait for it."""

    def __init__(self, session: aiohttp.ClientSession, url: str | None, token: str | None) -> None:
        self._session = session
        self._url = url
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._waiting: tuple[Progress, ...] = ()

    async def report(self, points: Iterable[Progress]) -> None:
        """Post these and what still waits; a refusal is only logged."""
        self._waiting = (*self._waiting, *points)[-PROGRESS_MAX_PER_BATCH:]
        if self._url is None or not self._waiting:
            return
        body = ProgressBatch(points=self._waiting).model_dump_json(by_alias=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.post(
                f"{self._url}/batch", data=body, headers=self._headers, timeout=timeout
            ) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("progress can't be reported; the work goes on", error=cause(error))
            return
        self._waiting = ()
