"""Why a training or an evaluation ends for good, and the exit code by which a container says so."""

from enum import StrEnum
from typing import Literal

from finetune_operator.contract.base import Message


class FailureReason(StrEnum):
    """Why a training ended for good. Those that a container can find out itself have an exit code in `EXIT_CODES`."""

    INVALID_CONFIG = "InvalidConfig"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_EMPTY = "DatasetEmpty"
    DATASET_TOO_SMALL = "DatasetTooSmall"
    DATASET_UNAVAILABLE = "DatasetUnavailable"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    BASE_MODEL_UNAVAILABLE = "BaseModelUnavailable"
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    OUT_OF_MEMORY = "OutOfMemory"
    KILLED = "Killed"
    STORAGE_EXCEEDED = "StorageExceeded"
    ARTIFACT_INVALID = "ArtifactInvalid"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    TRAINER_FAILED = "TrainerFailed"
    NAME_TAKEN = "NameTaken"
    PROVIDER_REFUSED = "ProviderRefused"
    ENGINE_REFUSED = "EngineRefused"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    API_UNAVAILABLE = "ApiUnavailable"


EXIT_CODES: dict[FailureReason, int] = {
    FailureReason.INVALID_CONFIG: 42,
    FailureReason.DATASET_INVALID: 43,
    FailureReason.DATASET_EMPTY: 44,
    FailureReason.DATASET_TOO_SMALL: 45,
    FailureReason.BASE_MODEL_NOT_FOUND: 46,
    FailureReason.BASE_MODEL_UNAVAILABLE: 46,
    FailureReason.DATABASE_UNREACHABLE: 47,
    FailureReason.OUT_OF_MEMORY: 48,
    FailureReason.ARTIFACT_INVALID: 49,
    # All eight codes are taken: the message says which of two reasons it was.
    FailureReason.PROVIDER_REFUSED: 42,
    FailureReason.ENGINE_REFUSED: 42,
    FailureReason.STORAGE_EXCEEDED: 43,
}
TRY_AGAIN_EXIT_CODE = 1
"""Of a reason without a code of its own, which may pass: Kubernetes tries again."""
SIGKILL_EXIT_CODE = 137


class Failure(Message):
    """Termination message of a container that gave up: the fact, and what the user can change."""

    kind: Literal["Failure"] = "Failure"
    reason: FailureReason
    message: str
    remedy: str


class Refused(Exception):
    """It can't be done; the failure says why, and what the user can change."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def because(cls, reason: FailureReason, message: str, remedy: str) -> "Refused":
        return cls(Failure(reason=reason, message=message, remedy=remedy))
