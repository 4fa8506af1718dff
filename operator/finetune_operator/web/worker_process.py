"""The process that works on the ratings database for a request, and is killed when it is not wanted any more."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from finetune_operator.logs import get_logger
from finetune_operator.store.dataset_worker import ORDER, OUTCOME, Order, Outcome
from finetune_operator.web.problems import Problem

POLL_SECONDS = 0.25
OWN_VARIABLES_PREFIX = "FINETUNE_"
PASSED_VARIABLES = frozenset({"FINETUNE_LOG_LEVEL"})

Watch = Callable[[], Awaitable[None]]

logger = get_logger(__name__)


class WorkerProcess:
    """Starts a process for each order; only so can work that blocks be ended at any moment."""

    async def outcome(self, order: Order, watch: Watch, timeout_seconds: float) -> Outcome:
        """Do the order; `watch` is called again and again, and ends it by raising. Raises problems."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "finetune_operator.store.dataset_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment_without_ours(),
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await _answer(process, ORDER.dump_json(order, by_alias=True) + b"\n", watch)
                # Its exit code is lost to whoever kills a process that is about to end.
                await process.wait()
        except TimeoutError:
            detail = (
                f"the ratings database was not read within {timeout_seconds:g} seconds; narrow the filters, set a "
                "limit, or raise FINETUNE_DATASETS_TIMEOUT_SECONDS"
            )
            raise Problem(504, "export-timeout", detail) from None
        finally:
            if process.returncode is None:
                _kill(process)
                await process.wait()
        if process.returncode != 0:
            logger.error("the dataset worker ended", exit_code=process.returncode)
            detail = "the process that reads the ratings ended before it was done; the api's log says why"
            raise Problem(500, "worker-ended", detail)
        return OUTCOME.validate_json(answer)


async def _answer(process: asyncio.subprocess.Process, order: bytes, watch: Watch) -> bytes:
    """All of the output; the input stays open until then, since its end is the process's."""
    if process.stdin is None or process.stdout is None:
        raise TypeError("the process has no pipes")
    process.stdin.write(order)
    reading = asyncio.create_task(process.stdout.read())
    try:
        while not (await asyncio.wait({reading}, timeout=POLL_SECONDS))[0]:
            await watch()
        return reading.result()
    finally:
        reading.cancel()


def _environment_without_ours() -> dict[str, str]:
    """No token and no database URL of the api: the worker is told by a file where the ratings are."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OWN_VARIABLES_PREFIX) or name in PASSED_VARIABLES
    }


def _kill(process: asyncio.subprocess.Process) -> None:
    try:
        process.kill()
    except ProcessLookupError:
        return
