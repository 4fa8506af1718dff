"""What the processes that ask engines have in common: many questions at once, and how one says how it ended."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from finetune_operator.contract.base import Message
from finetune_operator.contract.failures import EXIT_CODES, TRY_AGAIN_EXIT_CODE, Failure, FailureReason, Refused
from finetune_operator.evaluator.engine import EngineRefused, EngineUnavailable
from finetune_operator.logs import get_logger

KEEP_ALIVE_SECONDS = 2.0
"""vLLM closes a connection that has been idle for five; one that it is just closing fails the next request."""
MESSAGE_MAX_CHARACTERS = 600
"""With its remedy it fits into a termination message, whatever the alphabet."""

T = TypeVar("T")
logger = get_logger(__name__)


@dataclass(frozen=True)
class Remedies:
    """What the user can change where the engine is the cause."""

    refused: str
    unavailable: str


async def for_each(items: Iterable[T], at_once: int, work: Callable[[T], Awaitable[None]]) -> None:
    """All items, so many at a time, and none held that is not being worked on; the first failure ends the others."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def told(work: Callable[[], Message], termination_log: Path, remedies: Remedies) -> int:
    """Do the work; its report, or why there is none, is the termination message, the return value the exit code."""
    try:
        report = work()
    except Refused as refused:
        return _give_up(refused.failure, termination_log)
    except EngineRefused as error:
        failure = Failure(reason=FailureReason.ENGINE_REFUSED, message=str(error), remedy=remedies.refused)
        return _give_up(failure, termination_log)
    except EngineUnavailable as error:
        failure = Failure(reason=FailureReason.ENGINE_UNAVAILABLE, message=str(error), remedy=remedies.unavailable)
        return _give_up(failure, termination_log)
    logger.info("done", **report.model_dump(mode="json"))
    termination_log.write_text(report.model_dump_json(by_alias=True, exclude_none=True))
    return 0


def _give_up(failure: Failure, termination_log: Path) -> int:
    logger.error("gave up", reason=failure.reason, message=failure.message, remedy=failure.remedy)
    short = failure.model_copy(update={"message": failure.message[:MESSAGE_MAX_CHARACTERS]})
    termination_log.write_text(short.model_dump_json(by_alias=True))
    return EXIT_CODES.get(failure.reason, TRY_AGAIN_EXIT_CODE)
