"""What both databases keep of ABTests: votes and whose they are, subjects, and feedback."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import Sample, SampleBatch, SplitTally, VoteCounts
from finetune_operator.resources.abtest_decision import AccuracyFrom
from finetune_operator.store import feedback, samples, vote_statistics, votes
from finetune_operator.store.experiment_tables import Comparison
from finetune_operator.store.feedback import Accuracy, ArmRatings, KnownFeedback, Texts
from finetune_operator.store.tables import Rating
from finetune_operator.store.votes import Choice

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEST = "test-uid"
BALLOTS = (
    ("ada", "justice", Choice.FINE_TUNED),
    ("bob", "justice", Choice.FINE_TUNED),
    ("eve", "justice", Choice.BASE),
    ("ada", "courage", Choice.BOTH_BAD),
    ("bob", "courage", Choice.TIE),
    ("ada", "justice", Choice.BASE),
)


def sample(number: int, arm: str = "candidate", percent: int | None = None) -> Sample:
    """A request of ada's."""
    fields = {
        "ab_test": TEST,
        "served_name": "plato-v2",
        "status": 200,
        "latency_ms": 1,
        "time": NOON,
        "subject": "ada",
    }
    return Sample.model_validate(fields | {"arm": arm, "request_id": f"request-{number}", "candidate_percent": percent})


async def cast(engine: AsyncEngine, late: bool = False) -> None:
    """All ballots, a minute apart."""
    for number, (evaluator, prompt, choice) in enumerate(BALLOTS):
        time = NOON + timedelta(minutes=number)
        comparison = Comparison(
            id=f"{number}{'-late' * late}",
            abtest_uid=TEST,
            namespace="finetune",
            name="duel",
            evaluator=evaluator,
            number=number + 100 * late,
            prompt=prompt,
            baseline_served_name="tiny",
            candidate_served_name="plato-v2",
            baseline_answer="no",
            candidate_answer="yes",
            candidate_side="a",
            created_at=time,
        )
        stored = await votes.add_comparison(engine, comparison)
        await votes.cast_vote(engine, stored, choice, late=late, now=time)


async def test_the_votes_and_whose_they_are(engine: AsyncEngine) -> None:
    await cast(engine)
    await cast(engine, late=True)
    assert await votes.tally(engine, TEST) == VoteCounts(fine_tuned=2, base=2, tie=2, both_bad=1)
    assert await votes.tally(engine, TEST, max_votes=3) == VoteCounts(fine_tuned=2, base=1)
    found = await vote_statistics.voters(engine, TEST, None, limit=2)
    # Of the pairs on justice one of three agrees, on courage the only one; ada's second vote on justice is not asked.
    assert (found.evaluators, found.agreement) == (3, 2 / 4)
    assert [(voter.evaluator, voter.votes.total, voter.agreement) for voter in found.heaviest] == [
        ("ada", 3, 2 / 3),
        ("bob", 2, 2 / 3),
    ]
    assert (await vote_statistics.voters(engine, "another", None, limit=2)).evaluators == 0


async def test_the_win_rate_over_time(engine: AsyncEngine) -> None:
    await cast(engine)
    series = await vote_statistics.win_rates(engine, TEST, None, max_points=10)
    assert [(point.time - NOON).total_seconds() / 60 for point in series] == [0, 1, 2, 3, 4, 5]
    assert [point.votes.win_rate for point in series] == [1, 1, 2 / 3, 2.5 / 4, 3 / 5, 3 / 6]
    thinned = await vote_statistics.win_rates(engine, TEST, 5, max_points=3)
    assert [point.votes.total for point in thinned] == [3, 5]


async def test_a_subject_keeps_its_first_split(engine: AsyncEngine) -> None:
    for _ in range(2):
        await samples.record(engine, SampleBatch(samples=(sample(1, "baseline", 20), sample(2, "candidate", 80))))
    assert await samples.splits(engine, TEST) == (SplitTally(candidate_percent=20, baseline=1),)
    assert (await samples.tally(engine, TEST)).candidate.samples == 1


async def test_feedback_is_kept_once_with_one_rating(engine: AsyncEngine) -> None:
    texts = Texts("What is justice?", "Each does his own work.", reference="Each does his own.")
    both = await asyncio.gather(*(feedback.give(engine, "request-1", stars, texts, NOON) for stars in (5, 1)))
    assert both[0] == both[1]
    assert await feedback.give(engine, "request-2", 2, None, NOON) == KnownFeedback(2, False, None)
    async with AsyncSession(engine) as session:
        rows = await session.scalars(select(Rating).order_by(Rating.id))
        assert [rating.rating for rating in rows] == [both[0].rating, 5]
    await samples.record(engine, SampleBatch(samples=(sample(1), sample(2), sample(3))))
    assert await feedback.by_arm(engine, TEST) == {
        "candidate": ArmRatings(2, (both[0].rating + 2) / 2, 1, pytest.approx(8 / 9))
    }


TWICE = ("ada", "candidate")
SAID = {
    # By request: who asked, the arm, the stars.
    1: (*TWICE, 5), 2: (*TWICE, 1), 3: ("bob", "candidate", 5), 4: ("eve", "baseline", 3), 5: (None, "candidate", 1),
}  # fmt: skip


async def test_accuracy_counts_each_subject_once(engine: AsyncEngine) -> None:
    """A hundred ratings of one person are not a hundred observations; who asked nameless is nobody."""
    sent = [
        sample(number, arm).model_copy(update={"subject": subject, "candidate_percent": subject and 50})
        for number, (subject, arm, _) in SAID.items()
    ]
    copy = sample(6, "candidate").model_copy(update={"request_id": "request-4-shadow"})
    await samples.record(engine, SampleBatch(samples=tuple(sent), shadows=(copy,)))
    for number, (_, _, stars) in SAID.items():
        await feedback.give(engine, f"request-{number}", stars, None, NOON)
    # A client knows the id of the copy of its request, whose answer it has never seen.
    await feedback.give(engine, "request-4-shadow", 1, None, NOON)
    assert await feedback.accuracy_by_arm(engine, TEST, AccuracyFrom.RATINGS) == {
        "candidate": Accuracy(2, pytest.approx(0.75), pytest.approx(0.25)),
        "baseline": Accuracy(1, pytest.approx(0.5), pytest.approx(0, abs=1e-6)),
    }
    assert await feedback.accuracy_by_arm(engine, TEST, AccuracyFrom.REFERENCES) == {}
    assert await feedback.accuracy_by_arm(engine, "another", AccuracyFrom.RATINGS) == {}
    assert await feedback.count_all(engine) == 6
    texts = Texts("What is justice?", "Each does his own work.", reference="Each does his own.")
    await samples.record(engine, SampleBatch(samples=(sample(7),)))
    await feedback.give(engine, "request-7", 4, texts, NOON)
    of_references = await feedback.accuracy_by_arm(engine, TEST, AccuracyFrom.REFERENCES)
    assert of_references == {"candidate": Accuracy(1, pytest.approx(8 / 9), pytest.approx(0, abs=1e-6))}
