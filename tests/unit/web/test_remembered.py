"""Slow answers are told again for a while; quick ones are always of this moment."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from finetune_operator.web.remembered import MANY_ROWS, MAX_ENTRIES, Remembered


class Work:
    """Takes its time on a clock of its own, and answers with how often it was done."""

    def __init__(self, takes_seconds: float) -> None:
        self.time = 0.0
        self.done = 0
        self.takes_seconds = takes_seconds

    async def __call__(self) -> int:
        await asyncio.sleep(0)
        self.time += self.takes_seconds
        self.done += 1
        return self.done


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@pytest.mark.parametrize("takes_seconds", [0.001, 3.0])
async def test_the_same_rows_are_not_looked_at_again(takes_seconds: float) -> None:
    work = Work(takes_seconds)
    remembered = Remembered(lambda: work.time)
    assert [await remembered.answer("k", 5, work) for _ in range(3)] == [1, 1, 1]


async def test_a_first_answer_that_takes_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.web.remembered.PATIENCE_SECONDS", 0.0)
    done = asyncio.Event()
    remembered = Remembered()

    async def work() -> str:
        await done.wait()
        return "worked out"

    async def meanwhile() -> str:
        return "so far"

    assert await remembered.answer("k", MANY_ROWS, work, meanwhile) == "so far"
    of_few = asyncio.create_task(remembered.answer("few", MANY_ROWS - 1, work, meanwhile))
    done.set()
    assert await of_few == "worked out"
    await settle()
    assert await remembered.answer("k", MANY_ROWS, work, meanwhile) == "worked out"


async def test_quick_answers_are_of_this_moment() -> None:
    work = Work(0.001)
    remembered = Remembered(lambda: work.time)
    assert [await remembered.answer("k", rows, work) for rows in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("fewest", "told"), [(0, [1, 2, 3]), (MANY_ROWS, [MANY_ROWS + 1, MANY_ROWS + 1, MANY_ROWS + 1])]
)
async def test_a_number_of_rows_is_of_this_moment_unless_there_are_many(fewest: int, told: list[int]) -> None:
    work = Work(2.0)
    remembered = Remembered(lambda: work.time)

    async def count() -> int:
        return fewest + await work()

    assert [await remembered.answer("k", None, count) for _ in range(3)] == told
    work.time += 21
    await remembered.answer("k", None, count)
    await settle()
    assert await remembered.answer("k", None, count) == fewest + work.done


async def test_slow_answers_are_worked_out_beside() -> None:
    work = Work(2.0)
    remembered = Remembered(lambda: work.time)
    assert await remembered.answer("k", MANY_ROWS, work) == 1
    later = [await remembered.answer("k", MANY_ROWS + more, work) for more in (1, 2)]
    assert later == [1, 1], "not yet, it took two seconds"
    await settle()
    assert work.done == 1
    work.time += 21
    assert await remembered.answer("k", 2 * MANY_ROWS, work) == 1, "nobody waits"
    await settle()
    assert await remembered.answer("k", 2 * MANY_ROWS, work) == 2


async def test_few_rows_are_looked_at_however_long_it_takes() -> None:
    work = Work(2.0)
    remembered = Remembered(lambda: work.time)
    assert [await remembered.answer("k", rows, work) for rows in (1, 2, MANY_ROWS - 1)] == [1, 2, 3]


async def test_equal_questions_are_one() -> None:
    work = Work(2.0)
    remembered = Remembered(lambda: work.time)
    assert await asyncio.gather(*(remembered.answer("k", 1, work) for _ in range(5))) == [1] * 5


async def test_a_failure_is_told_and_not_kept() -> None:
    remembered, attempts = Remembered(), list[int]()

    def failing() -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            attempts.append(1)
            raise RuntimeError("the database is away")

        return work

    for _ in range(2):
        with pytest.raises(RuntimeError):
            await remembered.answer("k", 1, failing())
    assert len(attempts) == 2


async def test_few_are_kept() -> None:
    work = Work(0.0)
    remembered = Remembered(lambda: work.time)
    for key in range(MAX_ENTRIES + 1):
        await remembered.answer(key, 1, work)
    assert await remembered.answer(0, 1, work) == MAX_ENTRIES + 2
