"""How much an engine answers at most: ever twice as many questions at once, until that brings little more.

A closed loop: whoever has an answer asks the next question at once, so that the engine always has as many to answer.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from finetune_operator.contract.evaluation import Saturation
from finetune_operator.evaluator.engine import Engine, Sampling
from finetune_operator.evaluator.process import for_each
from finetune_operator.evaluator.questions import Question
from finetune_operator.logs import get_logger

WORTHWHILE_GAIN = 1.1
"""Twice as many at once that bring less than this have met the limit."""
DIGITS = 3

logger = get_logger(__name__)


@dataclass(frozen=True)
class Highest:
    """The highest rate that was seen, and whether it is the engine's limit rather than ours."""

    load: Saturation
    is_limit: bool


async def saturated(load: Callable[[int], Awaitable[Saturation]], max_concurrency: int) -> Highest:
    """`load` holds so many requests at once for a while and tells what came of it."""
    highest, at_once = await load(1), 2
    while at_once <= max_concurrency:
        found = await load(at_once)
        gained = found.requests_per_second >= WORTHWHILE_GAIN * highest.requests_per_second
        highest = max(highest, found, key=lambda each: each.requests_per_second)
        if not gained:
            return Highest(highest, is_limit=True)
        at_once *= 2
    return Highest(highest, is_limit=False)


async def held_load(
    engine: Engine, model: str, questions: Sequence[Question], sampling: Sampling, at_once: int, seconds: float
) -> Saturation:
    """Answers and their tokens by the time from the first question to the last answer; none begins after `seconds`."""
    started = time.monotonic()
    tokens: list[int] = []

    async def ask(question: Question) -> None:
        tokens.append((await engine.answer(model, question.asked, sampling)).tokens)

    await for_each(_until(started + seconds, questions), at_once, ask)
    lasted = time.monotonic() - started
    load = Saturation(
        concurrency=at_once,
        requests_per_second=round(len(tokens) / lasted, DIGITS),
        tokens_per_second=round(sum(tokens) / lasted, DIGITS),
    )
    logger.info("load held", model=model, **load.model_dump())
    return load


def _until(end: float, questions: Sequence[Question]) -> Iterator[Question]:
    """The questions over and over; one at least, however early the end."""
    for question in cycle(questions):
        yield question
        if time.monotonic() >= end:
            return
