"""Sums that triggers keep are those of the rows, on both databases, whoever writes or deletes rows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from sqlalchemy import insert
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import ArmTally, VoteCounts
from finetune_operator.store import migrations, samples, vote_statistics, votes
from finetune_operator.store.experiment_tables import ArmSample, Comparison, Vote
from finetune_operator.store.migrations import MIGRATIONS, migrate
from finetune_operator.store.vote_statistics import Cast, VoterMark
from finetune_operator.store.votes import Choice

OLDER = tuple(takewhile(lambda migration: "abtest_vote_log" not in migration.statements[0], MIGRATIONS))
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TEST = "test"
BALLOTS: tuple[tuple[str, Choice], ...] = (
    ("ada", Choice.FINE_TUNED), ("bob", Choice.BASE), ("ada", Choice.TIE), ("ada", Choice.FINE_TUNED),
    ("eve", Choice.BOTH_BAD), ("bob", Choice.FINE_TUNED), ("ada", Choice.BASE),
)  # fmt: skip


async def vote(engine: AsyncEngine, ballots: Sequence[tuple[str, Choice]], first: int = 0, late: bool = False) -> None:
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = dict.fromkeys(names, "x") | {"namespace": "n", "name": "t", "candidate_side": "a"}
    async with engine.begin() as connection:
        for number, (evaluator, choice) in enumerate(ballots, first):
            own = {"evaluator": evaluator, "abtest_uid": TEST, "created_at": NOON + timedelta(seconds=number)}
            identity = f"{number:04}"
            await connection.execute(insert(Comparison).values(id=identity, number=number, **shown, **own))
            cast = {"comparison_id": identity, "choice": choice.value, "late": late}
            await connection.execute(insert(Vote).values(**cast, **own))


async def agrees(engine: AsyncEngine) -> None:
    """What is kept is what looking at all votes says."""
    for max_votes in (None, 100, 3):
        for max_points in (2, 3, 100):
            kept = await vote_statistics.win_rates(engine, TEST, max_votes, max_points)
            assert kept == await vote_statistics._all_win_rates(engine, TEST, max_votes, max_points)
        voters = await vote_statistics.voters(engine, TEST, max_votes, 10)
        heaviest = voters.heaviest[0].votes if voters.heaviest else VoteCounts()
        counted = await votes.tally(engine, TEST, max_votes)
        aside = (await votes.standing(engine, TEST)).second_opinions
        assert await vote_statistics.cast(engine, TEST, max_votes) == Cast(counted, voters.evaluators, heaviest, aside)
    everybody = await vote_statistics.voters(engine, TEST, None, 10)
    for mark in (None, *(VoterMark(each.votes.total, each.evaluator) for each in everybody.heaviest)):
        listed = await vote_statistics.voters(engine, TEST, None, 10, mark)
        kept_voters = await vote_statistics.heaviest_voters(engine, TEST, 10, mark)
        assert listed.evaluators == kept_voters.evaluators == everybody.evaluators
        assert [(each.evaluator, each.votes) for each in kept_voters.heaviest] == [
            (each.evaluator, each.votes) for each in listed.heaviest if each.votes.total
        ]


async def points(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return (await connection.execute(sql("SELECT count(*) FROM abtest_vote_log"))).scalar_one()


async def test_votes_as_they_come(engine: AsyncEngine) -> None:
    await agrees(engine)
    for number, ballot in enumerate(BALLOTS):
        await vote(engine, [ballot], number)
        await agrees(engine)
    await vote(engine, [("eve", Choice.BASE)], 50, late=True)
    await agrees(engine)
    assert await points(engine) == len(BALLOTS)


async def test_a_vote_that_is_deleted(engine: AsyncEngine) -> None:
    await vote(engine, BALLOTS)
    await vote(engine, [("eve", Choice.BASE)], 50, late=True)
    async with engine.begin() as connection:
        await connection.execute(sql("DELETE FROM abtest_votes WHERE comparison_id = '0050'"))
    assert await points(engine) == len(BALLOTS), "a late one counts nowhere"
    for gone in ("0002", "0004"):
        async with engine.begin() as connection:
            await connection.execute(sql(f"DELETE FROM abtest_votes WHERE comparison_id = '{gone}'"))  # noqa: S608
        await agrees(engine)
    await vote(engine, BALLOTS[:2], 60)
    await agrees(engine)


@pytest.mark.parametrize("max_votes", [1, 3, None])
async def test_the_last_point_is_the_tally_where_apis_have_other_clocks(
    engine: AsyncEngine, max_votes: int | None
) -> None:
    """Votes are logged as they come, and those that count are the first by the time that was written on them."""
    for number, ballot in enumerate(BALLOTS):
        await vote(engine, [ballot], len(BALLOTS) - number)
    last = (await vote_statistics.win_rates(engine, TEST, max_votes, 100))[-1]
    assert last.votes == await votes.tally(engine, TEST, max_votes)


def sample(number: int, **said: object) -> dict[str, object]:
    arm = "candidate" if number % 3 else "baseline"
    return {
        "abtest_uid": TEST,
        "request_id": f"request-{number}",
        "arm": arm,
        "served_name": "plato-v1",
        "status": 200,
        "latency_ms": 100 * number,
        "time": NOON,
        "prompt_tokens": None,
        "completion_tokens": None,
        "shadow": False,
    } | said


SAMPLES = [
    sample(1, prompt_tokens=10, completion_tokens=20),
    sample(2, completion_tokens=40),
    sample(4, status=503),
    sample(5, status=404),
    sample(7, shadow=True),
    sample(8, shadow=True, status=500),
    sample(3),
]
CANDIDATE = ArmTally(
    samples=4, errors=1, mean_latency_ms=267, latency_subjects=3, standard_error_latency_ms=98.1306762925,
    samples_with_tokens=2,
    mean_prompt_tokens=10.0, mean_completion_tokens=30.0, token_subjects=2,
    standard_error_completion_tokens=10 / 2**0.5, shadow_samples=2,
    shadow_errors=1, shadow_mean_latency_ms=700,
)  # fmt: skip
BASELINE = ArmTally(samples=1, errors=0, mean_latency_ms=300, latency_subjects=1, standard_error_latency_ms=0.0)


async def test_samples(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(ArmSample), SAMPLES[:3])
        await connection.execute(insert(ArmSample), [*SAMPLES[3:], sample(9, request_id="gone", latency_ms=7)])
        await connection.execute(sql("DELETE FROM abtest_samples WHERE request_id = 'gone'"))
    found = await samples.tally(engine, TEST)
    assert found.candidate.model_dump() == pytest.approx(CANDIDATE.model_dump())
    assert found.baseline.model_dump() == pytest.approx(BASELINE.model_dump())


async def test_what_was_there_before(empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", OLDER)
        await migrate(empty_engine)
    await vote(empty_engine, BALLOTS[:4])
    await vote(empty_engine, [("eve", Choice.BASE)], 50, late=True)
    async with empty_engine.begin() as connection:
        await connection.execute(insert(ArmSample), SAMPLES)
    await migrate(empty_engine)
    await agrees(empty_engine)
    assert await points(empty_engine) == 4
    await vote(empty_engine, BALLOTS[4:], 60)
    await agrees(empty_engine)
    assert await points(empty_engine) == len(BALLOTS)
    found = await samples.tally(empty_engine, TEST)
    assert found.candidate.model_dump() == pytest.approx(CANDIDATE.model_dump())


async def test_votes_that_are_sent_again(engine: AsyncEngine) -> None:
    """The statement that leaves out what is there decides nothing of what the triggers do."""
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = dict.fromkeys(names, "x") | {"namespace": "n", "name": "t", "candidate_side": "a"}
    for number, (evaluator, choice) in enumerate(BALLOTS):
        own = {"evaluator": evaluator, "abtest_uid": TEST, "created_at": NOON}
        comparison = Comparison(id=f"{number:04}", number=number, **shown, **own)
        for _ in range(2):
            kept = await votes.add_comparison(engine, comparison)
            await votes.cast_vote(engine, kept, choice, late=False, now=NOON + timedelta(seconds=number))
    assert (await votes.standing(engine, TEST)).comparisons == len(BALLOTS)
    assert (await vote_statistics.cast(engine, TEST, None)).heaviest == VoteCounts(fine_tuned=2, base=1, tie=1)
    await agrees(engine)
