"""What the operator asks of the api process; without answers training, serving and rollback go on."""

import time
from datetime import datetime

import aiohttp
from pydantic import ValidationError

from finetune_operator.contract.experiments import AbTestTally, RatingTally
from finetune_operator.contract.places import EVALUATION_PATH, PROGRESS_PATH, TALLY_PATH, VERSION_RATINGS_PATH
from finetune_operator.contract.served_evaluation import RecordedEvaluation
from finetune_operator.contract.training import LatestProgress, Progress
from finetune_operator.logs import cause, get_logger

TIMEOUT_SECONDS = 5.0
AWAY_SECONDS = 30.0
RATINGS_TIMEOUT_SECONDS = 1.0
RATINGS_SECONDS = 30.0
"""Each rating may change a status, whose write brings the version back here: so often at most."""

logger = get_logger(__name__)


class Api:
    """Every method returns None where the api is away: no news, not no votes."""

    def __init__(self, session: aiohttp.ClientSession, url: str | None, token: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self.recorded: dict[str, datetime] = {}
        self._away_until = 0.0
        self._ratings: dict[str, tuple[float, RatingTally | None]] = {}

    async def progress(self, job_uid: str) -> Progress | None:
        """The newest measurement of a training."""
        text = await self._get(PROGRESS_PATH, {"job": job_uid})
        try:
            return LatestProgress.model_validate_json(text).root.get(job_uid) if text else None
        except ValidationError as error:
            logger.warning("the api's progress is unreadable", error=str(error))
            return None

    async def tally(self, test_uid: str, max_votes: int, accuracy_from: str | None) -> AbTestTally | None:
        """Samples of an ABTest, with their accuracy where it is asked for, and its first `max_votes` votes."""
        asked = {"max_votes": str(max_votes)} | ({"accuracy_from": accuracy_from} if accuracy_from else {})
        text = await self._get(TALLY_PATH.format(uid=test_uid), asked)
        try:
            return AbTestTally.model_validate_json(text) if text else None
        except ValidationError as error:
            logger.warning("the api's tally is unreadable", error=str(error))
            return None

    async def ratings(self, version_uid: str) -> RatingTally | None:
        """How the answers of a version were rated, half a minute ago at the most.

        Nothing that serving depends on, which hence waits a second at the most, and not at all for an api that has just
        been away or refused to tell.
        """
        now = time.monotonic()
        known = self._ratings.get(version_uid)
        if known and now < known[0] + RATINGS_SECONDS:
            return known[1]
        if now < self._away_until:
            return None
        self._ratings = {uid: kept for uid, kept in self._ratings.items() if now < kept[0] + RATINGS_SECONDS}
        text = await self._get(VERSION_RATINGS_PATH.format(uid=version_uid), {}, RATINGS_TIMEOUT_SECONDS)
        try:
            tally = RatingTally.model_validate_json(text) if text else None
        except ValidationError as error:
            logger.warning("the api's ratings are unreadable", error=str(error))
            tally = None
        self._ratings[version_uid] = (time.monotonic(), tally)
        return tally

    async def record(self, identity: str, evaluation: RecordedEvaluation) -> None:
        """Put one evaluation into the database; that it is there is in `recorded` then, with the time of its measuring.

        While the api is away, one try in half a minute is enough for all versions together.
        """
        if not self._url or time.monotonic() < self._away_until:
            return
        path, body = EVALUATION_PATH.format(id=identity), evaluation.model_dump_json(by_alias=True)
        headers = self._headers | {"Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.put(self._url + path, data=body, headers=headers, timeout=timeout) as answer:
                if answer.status == 204:
                    self.recorded[identity] = evaluation.measured_at
                    return
                text = (await answer.text())[:300]
                logger.warning("the api did not record an evaluation", id=identity, status=answer.status, text=text)
                if answer.status < 500:
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the api is away", path=path, error=cause(error))
        self._away_until = time.monotonic() + AWAY_SECONDS

    async def _get(self, path: str, params: dict[str, str], timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
        if not self._url:
            return None
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.get(
                self._url + path, params=params, headers=self._headers, timeout=timeout
            ) as answer:
                if answer.status == 200:
                    return await answer.text()
                logger.warning("the api refused", path=path, status=answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the api is away", path=path, error=cause(error))
            self._away_until = time.monotonic() + AWAY_SECONDS
        return None
