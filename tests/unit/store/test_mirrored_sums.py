"""What rows sum up to, on both databases, and what the same objects sum up to one by one."""

from datetime import date
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.store import deleted_trainings, deleted_versions, mirrored, mirrored_sums, usage
from finetune_operator.store.mirrored import Facts, Row
from finetune_operator.store.mirrored_sums import AnswerSums, Mean, TrainingSums
from tests.builders import job_object, version_object

JOBS, VERSIONS = "finetunejobs", "modelversions"
HERE, ELSEWHERE = ("finetune",), ("other",)
TRAININGS = (
    Facts(state="completed", currency="USD", amount_micros=1_500_000),
    Facts(state="completed", currency="USD", amount_micros=2),
    Facts(state="queued", currency="EUR", amount_micros=3_000_000, is_over_budget=True),
    Facts(state="training", is_unpriced=True),
    Facts(),
)
PRICED = Facts(state="Ready", currency="USD", amount_micros=2_000_000, win_rate=0.5)
ANSWERS: tuple[tuple[Facts, tuple[int, int, int] | None], ...] = (
    (PRICED, (10, 10, 3_000_000)),
    (PRICED._replace(win_rate=0.7), (5, 0, 0)),
    (Facts(state="Ready"), (7, 7, 100)),
    (Facts(state="Failed", currency="EUR", amount_micros=1), None),
    (PRICED._replace(currency="EUR", win_rate=None), (1, 1, 10**12)),
)
"""With calls, those of them with tokens, and the tokens."""


async def keep_trainings(engine: AsyncEngine) -> None:
    bodies = (job_object(name=f"job-{number}", resource_version="1") for number in range(len(TRAININGS)))
    await mirrored.keep(engine, [Row(JOBS, body, facts) for body, facts in zip(bodies, TRAININGS, strict=True)])


async def keep_versions(engine: AsyncEngine) -> None:
    for number, (facts, counts) in enumerate(ANSWERS, 1):
        await mirrored.keep(engine, [Row(VERSIONS, version_object(number, resource_version="1"), facts)])
        if counts is not None:
            named = dict(zip(("calls", "calls_with_tokens", "completion_tokens"), counts, strict=True))
            day = DayOfUsage(version_uid=f"uid-of-plato-v{number}", day=date(2026, 11, 20), **named)
            await usage.record(engine, UsageReport(reporter="gateway", days=(day,)))


async def test_trainings(engine: AsyncEngine) -> None:
    await keep_trainings(engine)
    one_by_one = TrainingSums()
    for facts in TRAININGS:
        one_by_one.add(facts)
    spent = {"USD": Decimal("1.500002"), "EUR": Decimal(3)}
    assert one_by_one == TrainingSums(count=5, unpriced=1, over_budget=1, spent=spent)
    for namespaces in (None, HERE):
        assert await deleted_trainings.all_sums(engine, JOBS, namespaces) == one_by_one
    assert await deleted_trainings.all_sums(engine, JOBS, ELSEWHERE) == TrainingSums()


async def test_answers(engine: AsyncEngine) -> None:
    await keep_versions(engine)
    one_by_one = AnswerSums()
    used = await usage.of_versions(engine, [f"uid-of-plato-v{number}" for number in range(1, 6)])
    for number, (facts, _) in enumerate(ANSWERS, 1):
        one_by_one.add(facts, used.get(f"uid-of-plato-v{number}"))
    spent = {"USD": Decimal(6), "EUR": Decimal(2_000_000)}
    assert one_by_one == AnswerSums(versions=5, unpriced=2, calls=23, untold=5, spent=spent)
    for namespaces in (None, HERE):
        assert await deleted_versions.all_sums(engine, VERSIONS, namespaces) == one_by_one
    assert await deleted_versions.all_sums(engine, VERSIONS, ELSEWHERE) == AnswerSums()


async def test_states_and_win_rates(engine: AsyncEngine) -> None:
    await keep_trainings(engine)
    await keep_versions(engine)
    assert await mirrored_sums.states(engine, JOBS, HERE) == {"completed": 2, "queued": 1, "training": 1, None: 1}
    assert await mirrored_sums.states(engine, JOBS, ELSEWHERE) == {}
    assert await mirrored_sums.win_rates(engine, VERSIONS, HERE) == Mean(0.6, 2)
    assert await mirrored_sums.win_rates(engine, VERSIONS, ELSEWHERE) == Mean(None, 0)
