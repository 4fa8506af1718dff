"""Votes that the api has acknowledged outlive the death of whatever held them, and none counts twice.

    FINETUNE_TEST_VOTES=50000 pytest tests/unit/web/test_votes_and_kills.py     (`make votes`)

The api is the process of a pod, PostgreSQL a real server. People vote by HTTP; they repeat a request that had no answer
without knowing whether it was heeded, and the impatient ones send it several times at once.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import func, select

from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.experiment_tables import Comparison, Vote
from finetune_operator.store.votes import Choice
from tests import postgres_server
from tests.postgres_server import PostgresServer
from tests.unit.web.voting import OUTAGE_SECONDS, Voters, api_with
from tests.waiting import eventually

VOTES = int(os.environ.get("FINETUNE_TEST_VOTES", "400"))
VOTERS = 20
KILLS = 3
ZEALOT, ZEALOTS_VOTES = "zealot", 100

Kill = Callable[[int], Awaitable[None]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server.running() as server:
        yield server


async def vote_through(voters: Voters, kill: Kill) -> None:
    """All vote, while something is killed each time that another part of the votes is in."""
    random = Random(7)
    acknowledged = voters.ballots.acknowledged

    async def kill_now_and_then() -> None:
        for number in range(KILLS):
            enough = VOTES * (number + 1) // (KILLS + 2)
            await eventually(lambda enough=enough: len(acknowledged) >= enough, OUTAGE_SECONDS + VOTES)
            await kill(number)

    async with asyncio.TaskGroup() as people:
        people.create_task(kill_now_and_then())
        people.create_task(voters.judges(ZEALOT, 3, lambda: Choice.FINE_TUNED, times=ZEALOTS_VOTES))
        for number in range(VOTERS):
            times = 2 if number % 5 == 0 else 1
            voting = voters.judges(
                f"voter {number}", VOTES // VOTERS, lambda: random.choice(tuple(Choice)), times=times
            )
            people.create_task(voting)


async def assert_none_lost_none_twice(voters: Voters, database: str) -> None:
    ballots = voters.ballots
    assert ballots.failures > 0, "nobody noticed any of the kills"
    assert len(ballots.acknowledged) == VOTES // VOTERS * VOTERS + 3
    engine = async_engine(parse_url(database))
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(select(Vote.comparison_id, Vote.evaluator, Vote.choice))).all()
            comparisons = (await connection.execute(select(func.count()).select_from(Comparison))).scalar_one()
    finally:
        await engine.dispose()
    assert len(rows) == len(ballots.acknowledged)
    # A request for one that its client had given up may have made another, for each voter one that stays open.
    assert 0 <= comparisons - len(rows) <= VOTERS + 1
    assert {(comparison, evaluator): choice for comparison, evaluator, choice in rows} == ballots.acknowledged
    told, counted = Counter(ballots.acknowledged.values()), (await voters.tally("test-uid")).votes
    assert counted.model_dump() == {
        "fine_tuned": told[Choice.FINE_TUNED],
        "base": told[Choice.BASE],
        "tie": told[Choice.TIE] + told[Choice.BOTH_BAD],
        "both_bad": told[Choice.BOTH_BAD],
    }


async def assert_a_zealot_counts_once_a_comparison(voters: Voters) -> None:
    mine = voters.ballots.of(ZEALOT)
    assert list(mine.values()) == [Choice.FINE_TUNED] * 3
    statuses = [await voters.votes(ZEALOT, comparison, Choice.BASE) for comparison in mine]
    assert statuses == [409, 409, 409]


async def test_a_postgresql_that_is_killed_loses_no_vote(tmp_path: Path, postgres: PostgresServer) -> None:
    database = postgres.database()
    name = database.rpartition("/")[2]

    async def kill(number: int) -> None:
        if number % 2:
            assert await asyncio.to_thread(postgres.crash_session, name)
        else:
            await asyncio.to_thread(postgres.crash)
            await asyncio.to_thread(postgres.start)

    async with api_with(tmp_path, database) as (_, voters, _):
        await vote_through(voters, kill)
        await assert_a_zealot_counts_once_a_comparison(voters)
        await assert_none_lost_none_twice(voters, database)


async def test_an_api_that_is_killed_on_sqlite_loses_no_vote(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/votes.db"
    async with api_with(tmp_path, database) as (api, voters, _):

        async def kill(_: int) -> None:
            await asyncio.to_thread(api.kill)
            api.start()

        await vote_through(voters, kill)
        await assert_a_zealot_counts_once_a_comparison(voters)
        await assert_none_lost_none_twice(voters, database)
