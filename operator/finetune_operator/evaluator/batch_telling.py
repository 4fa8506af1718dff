"""The first answers of a batch inference, told to the api: the volume is mounted by no process that people reach.

While the batch runs they are told as they come, and all once more at its end. The files are the results: an api that
is away costs nothing but what it could have shown.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import aiohttp

from finetune_operator.contract.batch_answers import ANSWERS_MAX_PER_REQUEST, TOLD_ROWS, BatchAnswer, BatchAnswers
from finetune_operator.contract.batch_inference import BatchInferenceConfig
from finetune_operator.contract.places import BatchPaths
from finetune_operator.core.batch_answers import told_answer
from finetune_operator.core.batch_inference import Request
from finetune_operator.evaluator.batch_requests import read_requests
from finetune_operator.evaluator.engine import RETRIED_STATUSES, Patience, Trouble, Unavailable, persist
from finetune_operator.logs import cause, get_logger

TAKEN = 204
TIMEOUT_SECONDS = 10.0
OUTAGE_SECONDS = 30.0
"""How long an api that is away is waited for at the end."""

logger = get_logger(__name__)


class NotTaken(Exception):
    """The api will not take them, and would not another time."""


class Teller:
    """Tells the api; never fails the batch, and does nothing where there is no api."""

    def __init__(self, session: aiohttp.ClientSession, config: BatchInferenceConfig, token: str | None) -> None:
        self._session = session
        self._config = config
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._requests: Sequence[Request] = ()
        self._told: set[tuple[str, int]] = set()

    async def tell_new(self, served_name: str, requests: Path, line_of: Callable[[int], bytes | None]) -> None:
        """Those that have come since the last time; `line_of` a row is None as long as it is not answered."""
        if self._config.answers_url is None:
            return
        self._requests = self._requests or tuple(islice(read_requests(requests), TOLD_ROWS))
        new = (request for request in self._requests if (served_name, request.index) not in self._told)
        found = [
            told_answer(served_name, request, line) for request in new if (line := line_of(request.index)) is not None
        ]
        for group in _groups(found):
            try:
                await self._put(group)
            except (NotTaken, Trouble, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("answers can't be told to the api yet; the work goes on", error=cause(error))
                return
            self._told |= {(served_name, answer.number - 1) for answer in group}

    async def tell_all(self, paths: BatchPaths, patience: Patience) -> None:
        """Of the files as they are at the end, with patience."""
        if self._config.answers_url is None:
            return
        patience = replace(patience, outage_seconds=min(patience.outage_seconds, OUTAGE_SECONDS))
        try:
            for group in _groups(list(self._all(paths))):
                await persist("the api", partial(self._put, group), patience)
        except (NotTaken, Unavailable) as error:
            logger.warning("the api keeps no answers, or not all that it could; the files have them", error=str(error))

    def _all(self, paths: BatchPaths) -> Iterator[BatchAnswer]:
        for model in self._config.models:
            requests = islice(read_requests(Path(paths.requests)), TOLD_ROWS)
            with Path(paths.answers(model.served_name)).open("rb") as lines:
                for request, line in zip(requests, lines, strict=False):
                    yield told_answer(model.served_name, request, line)

    async def _put(self, answers: Sequence[BatchAnswer]) -> None:
        sent = BatchAnswers(batch=self._config.batch, answers=tuple(answers))
        body = sent.model_dump_json(by_alias=True, exclude_none=True)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        url = str(self._config.answers_url)
        async with self._session.put(url, data=body, headers=self._headers, timeout=timeout) as answer:
            if answer.status == TAKEN:
                return
            told = f"the api answered {answer.status}: {(await answer.text())[:300]}"
            raise (Trouble if answer.status >= 500 or answer.status in RETRIED_STATUSES else NotTaken)(told)


def _groups(answers: Sequence[BatchAnswer]) -> Iterator[Sequence[BatchAnswer]]:
    for begin in range(0, len(answers), ANSWERS_MAX_PER_REQUEST):
        yield answers[begin : begin + ANSWERS_MAX_PER_REQUEST]
