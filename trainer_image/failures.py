"""Errors that a second try can't mend, and the log: one JSON object a line on standard output."""

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from finetune_operator.contract.failures import Failure, FailureReason


class GivenUp(Exception):
    """Ends the training for good; the reason decides the exit code, the remedy is what the user can change."""

    def __init__(self, reason: FailureReason, message: str, remedy: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, remedy=remedy)


def is_out_of_memory(error: BaseException) -> bool:
    """Torch reports a full GPU by its own class, a full host by a RuntimeError of the allocator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def out_of_memory(error: BaseException) -> GivenUp:
    return GivenUp(
        FailureReason.OUT_OF_MEMORY,
        f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        "lower spec.training.batchSize (and raise gradientAccumulationSteps) or maxSeqLength, or raise spec.resources",
    )


COPIES: list[Callable[[dict[str, Any]], None]] = []
"""Who else gets each line of the log; see job_log.py."""


COMMON_FIELDS: dict[str, Any] = {}
"""What each line says besides its own."""


def log(message: str, **fields: Any) -> None:
    """A structured line; values that JSON lacks are written as text."""
    line = line_of(message, fields)
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()
    for copy in COPIES:
        copy(line)


def line_of(message: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": message, **COMMON_FIELDS, **fields}
