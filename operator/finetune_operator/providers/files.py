"""What a training at a provider keeps on the artifacts volume, and how it says how it ended.

`remote.json` is written before whatever would otherwise be made twice: an upload's id before the job is created, the
job's id before it is waited for.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.contract.training import TrainingResult
from finetune_operator.providers.fine_tuning_client import Unanswered
from finetune_operator.providers.patience import Patience
from finetune_operator.store import durable
from finetune_operator.store.container import take_lock


class Record(Message):
    """Ids at the provider; `abandoned` are jobs that failed by the provider's own fault."""

    training_file: str | None = None
    validation_file: str | None = None
    job: str | None = None
    abandoned: tuple[str, ...] = ()


class LockTaken(Unanswered):
    """Another attempt at this job is at work."""


@asynccontextmanager
async def exclusive(lock_file: Path, attempt: str, patience: Patience) -> AsyncIterator[None]:
    """Hold the job's lock, the same one that the trainer holds; `LockTaken` once patience ends."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o664)
    try:

        async def acquire() -> None:
            if (holder := take_lock(descriptor, attempt)) is not None:
                raise LockTaken(f"another attempt holds the job: {holder}")

        await patience.insist(acquire)
        yield
    finally:
        os.close(descriptor)


def read_record(file: Path) -> Record:
    return Record.model_validate_json(file.read_bytes()) if file.exists() else Record()


def read_result(file: Path) -> TrainingResult | None:
    """The outcome of an earlier attempt, if it got to its end."""
    return TrainingResult.model_validate_json(file.read_bytes()) if file.exists() else None


def read_report(file: Path) -> DatasetReport:
    """What the prepare container made, which has ended before this one began."""
    return DatasetReport.model_validate_json(file.read_bytes())


def write_durably(message: Message, file: Path) -> None:
    """A reader sees the old content or the new one, also after a power cut."""
    durable.replace(file, message.model_dump_json(by_alias=True, indent=2).encode())


def termination_message(outcome: TrainingResult | Failure) -> bytes:
    """As JSON of at most what the kubelet keeps, the less telling parts left out first."""
    if isinstance(outcome, Failure):
        # Characters that JSON escapes have six bytes, and the message may be the provider's own.
        shorter: list[TrainingResult | Failure] = [
            outcome.model_copy(update={"message": outcome.message[:most], "remedy": outcome.remedy[: most // 2]})
            for most in (800, 400)
        ]
    else:
        dataset = outcome.dataset.model_copy(update={"warnings": (), "dropped": {}, "dropped_rows": {}})
        shorter = [outcome.model_copy(update={"dataset": dataset})]
    for candidate in (outcome, *shorter):
        content = candidate.model_dump_json(by_alias=True).encode()
        if len(content) <= TERMINATION_MESSAGE_MAX_BYTES:
            return content
    raise ValueError(f"a termination message of {len(content)} bytes can't be shortened")
