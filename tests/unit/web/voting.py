"""People who vote by HTTP and try again whatever goes wrong, and the book of what they were told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from finetune_operator.contract.experiments import AbTestTally
from finetune_operator.contract.places import TALLY_PATH
from finetune_operator.kube.errors import Unavailable
from finetune_operator.store.votes import Choice
from tests.unit.web.api_process import Process
from tests.unit.web.conftest import INTERNAL, PUBLIC, ab_test, model_version
from tests.unit.web.played_cluster import PlayedCluster
from tests.waiting import eventually

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=10)
"""After that a client has lost its patience, and asks again without knowing what became of its request."""
OUTAGE_SECONDS = 180.0
"""A database or an api that was killed is back by then, on however busy a machine."""

Json = dict[str, Any]


@dataclass
class Ballots:
    """What the api has acknowledged: the choice of each (comparison, evaluator)."""

    acknowledged: dict[tuple[str, str], str] = field(default_factory=dict)
    late: set[tuple[str, str]] = field(default_factory=set)
    failures: int = 0
    """Requests without an answer, or with one that says to ask again."""

    def note(self, comparison: str, evaluator: str, answer: Json) -> None:
        """However often a vote is acknowledged, it is always the same one."""
        ballot = (comparison, evaluator)
        assert self.acknowledged.setdefault(ballot, answer["vote"]) == answer["vote"]
        if answer["late"]:
            self.late.add(ballot)

    def of(self, evaluator: str) -> dict[str, str]:
        """The evaluator's choices by comparison."""
        return {comparison: choice for (comparison, voter), choice in self.acknowledged.items() if voter == evaluator}


class Voters:
    """Clients of one api, with one book."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.ballots = Ballots()
        self._session = session
        self._url = url

    async def compares(self, evaluator: str) -> str:
        """The comparison that the evaluator is to judge next."""
        status, answer = await self._post("comparisons", {"evaluator": evaluator})
        assert status == 200, answer
        return str(answer["comparison_id"])

    async def votes(self, evaluator: str, comparison: str, choice: Choice) -> int:
        """The answer's status: 200, or 409 where another vote of the same evaluator was first."""
        body = {"comparison_id": comparison, "evaluator": evaluator, "vote": choice.value}
        status, answer = await self._post("vote", body)
        assert status in (200, 409), answer
        if status == 200:
            self.ballots.note(comparison, evaluator, answer)
        return status

    async def judges(self, evaluator: str, count: int, choose: Callable[[], Choice], times: int = 1) -> None:
        """One comparison after the other, with each vote sent so many times at once."""
        for _ in range(count):
            comparison, choice = await self.compares(evaluator), choose()
            statuses = await asyncio.gather(*(self.votes(evaluator, comparison, choice) for _ in range(times)))
            assert set(statuses) == {200}

    async def tally(self, test_uid: str) -> AbTestTally:
        _, answer = await self._insist("GET", TALLY_PATH.format(uid=test_uid), INTERNAL, None)
        return AbTestTally.model_validate(answer)

    async def _post(self, path: str, body: Json) -> tuple[int, Json]:
        return await self._insist("POST", f"/v1/fine-tuning/ab-test/finetune/v1-v2/{path}", PUBLIC, body)

    async def _insist(self, method: str, path: str, headers: dict[str, str], body: Json | None) -> tuple[int, Json]:
        return await eventually(partial(self._ask, method, path, headers, body), OUTAGE_SECONDS)

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: Json | None) -> tuple[int, Json]:
        try:
            async with self._session.request(
                method, self._url + path, json=body, headers=headers, timeout=REQUEST_TIMEOUT
            ) as response:
                status, answer = response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.ballots.failures += 1
            raise Unavailable(repr(error)) from error
        if status >= 500:
            self.ballots.failures += 1
            raise Unavailable(f"{status}: {answer}")
        return status, answer


@asynccontextmanager
async def api_with(
    directory: Path, database: str, **decision: object
) -> AsyncIterator[tuple[Process, Voters, PlayedCluster]]:
    """The api's process with an ABTest that takes any number of votes, unless its `decision` says otherwise."""
    test = ab_test(decision={"maxVotes": 1_000_000} | decision)
    cluster = PlayedCluster(("abtests", test), ("modelversions", model_version()))
    async with cluster.running(), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        api = Process(directory, cluster.url, FINETUNE_DATABASE_URL=database, FINETUNE_GATEWAY_URL=cluster.url)
        try:
            await asyncio.to_thread(api.wait_until_ready)
            yield api, Voters(session, f"http://127.0.0.1:{api.port}"), cluster
        finally:
            await asyncio.to_thread(api.kill)
