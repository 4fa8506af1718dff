"""Of the votes on the same two answers the first one counts, on both databases, also where two come at once."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from sqlalchemy import insert, select
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store import migrations, vote_statistics, votes
from finetune_operator.store.experiment_tables import Comparison, Vote
from finetune_operator.store.migrations import MIGRATIONS, migrate
from finetune_operator.store.votes import Choice
from tests.unit.store.test_experiment_sums import TEST, agrees

OLDER = tuple(takewhile(lambda each: "second_opinion" not in "".join(each.statements), MIGRATIONS))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAMES = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
SHOWN = dict.fromkeys(NAMES, "x") | {"namespace": "n", "name": "t", "candidate_side": "a", "abtest_uid": TEST}


def comparison(evaluator: str, pair: str, number: int = 0) -> Comparison:
    own = {"id": f"{pair}-{evaluator}", "evaluator": evaluator, "pair_id": pair, "number": number}
    return Comparison(created_at=NOON, **SHOWN, **own)


async def give(engine: AsyncEngine, evaluator: str, pair: str, choice: Choice, second: int, late: bool = False) -> Vote:
    shown = await votes.add_comparison(engine, comparison(evaluator, pair, second))
    return await votes.cast_vote(engine, shown, choice, late=late, now=NOON + timedelta(seconds=second))


async def test_the_first_of_a_pair_counts(engine: AsyncEngine) -> None:
    first = await give(engine, "ada", "one", Choice.BASE, 0)
    second = await give(engine, "bob", "one", Choice.FINE_TUNED, 1)
    other = await give(engine, "bob", "two", Choice.TIE, 2)
    late = await give(engine, "eve", "three", Choice.BASE, 3, late=True)
    assert [each.second_opinion for each in (first, second, other, late)] == [False, True, False, False]
    assert await votes.standing(engine, TEST) == (VoteCounts(base=1, tie=1), 1, 1, 4)
    await agrees(engine)


async def test_sent_again_a_vote_stays_what_it_was(engine: AsyncEngine) -> None:
    for evaluator, is_second in (("ada", False), ("bob", True), ("ada", False), ("bob", True)):
        shown = await votes.add_comparison(engine, comparison(evaluator, "one"))
        kept = await votes.cast_vote(engine, shown, Choice.BASE, late=False, now=NOON)
        assert kept.second_opinion is is_second
    assert (await votes.tally(engine, TEST)).total == 1


async def test_of_many_at_once_one_counts(engine: AsyncEngine) -> None:
    people = [f"person-{number}" for number in range(8)]
    kept = await asyncio.gather(*(give(engine, each, "one", Choice.BASE, 0) for each in people))
    assert sorted(each.second_opinion for each in kept) == [False, *[True] * 7]
    assert await votes.standing(engine, TEST) == (VoteCounts(base=1), 0, 7, 8)


async def test_all_sums_follow_the_rule(engine: AsyncEngine) -> None:
    rng = random.Random(3)
    first: dict[str, Choice] = {}
    turns = [(f"person-{person}", f"pair-{pair}") for person in range(5) for pair in range(9)]
    rng.shuffle(turns)
    for second, (evaluator, pair) in enumerate(turns):
        choice = rng.choice(list(Choice))
        await give(engine, evaluator, pair, choice, second)
        first.setdefault(pair, choice)
    choices = list(first.values())
    counted = await votes.tally(engine, TEST)
    assert (counted.fine_tuned, counted.base) == (choices.count(Choice.FINE_TUNED), choices.count(Choice.BASE))
    assert (counted.total, counted.both_bad) == (9, choices.count(Choice.BOTH_BAD))
    await agrees(engine)
    async with engine.begin() as connection:
        await connection.execute(sql("DELETE FROM abtest_votes WHERE second_opinion"))
    assert await votes.standing(engine, TEST) == (counted, 0, 0, 45)


async def test_second_opinions_tell_how_well_people_agree(engine: AsyncEngine) -> None:
    for second, (evaluator, choice) in enumerate([("ada", Choice.BASE), ("bob", Choice.BASE), ("eve", Choice.TIE)]):
        await give(engine, evaluator, "one", choice, second)
    found = await vote_statistics.voters(engine, TEST, 1, 10)
    assert (found.evaluators, found.agreement) == (1, pytest.approx(1 / 3))
    assert [(each.evaluator, each.votes.total) for each in found.heaviest] == [("ada", 1), ("bob", 0), ("eve", 0)]


async def test_votes_from_before_the_rule(empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", OLDER)
        await migrate(empty_engine)
    cast = [("ada", "one", "base", False), ("bob", "one", "base", False), ("eve", "one", "tie", True)]
    cast += [("ada", None, "fine_tuned", False), ("bob", None, "fine_tuned", False)]
    async with empty_engine.begin() as connection:
        for number, (evaluator, pair, choice, late) in enumerate(cast):
            own = {"id": f"{number}", "evaluator": evaluator, "pair_id": pair, "number": number, "created_at": NOON}
            await connection.execute(insert(Comparison).values(**SHOWN, **own))
            vote = {"comparison_id": f"{number}", "evaluator": evaluator, "abtest_uid": TEST, "choice": choice}
            await connection.execute(
                insert(Vote).values(late=late, created_at=NOON + timedelta(seconds=number), **vote)
            )
    await migrate(empty_engine)
    assert await votes.standing(empty_engine, TEST) == (VoteCounts(fine_tuned=2, base=1), 1, 1, 5)
    await agrees(empty_engine)
    assert (await give(empty_engine, "kim", "one", Choice.BASE, 9)).second_opinion, "also on a pair of before"
    async with empty_engine.connect() as connection:
        assert None not in (await connection.scalars(select(Vote.pair_id))).all()
