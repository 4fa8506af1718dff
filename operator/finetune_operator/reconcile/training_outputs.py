"""What a FineTuneJob's status tells of the files that its training left."""

from collections.abc import Iterable

from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.conditions import Finding
from finetune_operator.reconcile.plan import Event
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.outputs import MAX_ARTIFACTS, ArtifactStatus

FAILED = "OutputFailed"


def artifacts_status(result: TrainingResult) -> tuple[ArtifactStatus, ...] | None:
    """None of a training at a provider, and where the termination message had no room for them."""
    left = result.artifacts[:MAX_ARTIFACTS]
    return tuple(ArtifactStatus.model_validate(each.model_dump(mode="json")) for each in left) or None


def exported(job: FineTuneJob, result: TrainingResult) -> Iterable[Finding]:
    """The condition `Exported`, where outputs were asked for; the job succeeds without them."""
    if errors := _errors(job, result):
        yield Finding("Exported", False, FAILED, errors)
    elif job.spec.outputs:
        yield Finding("Exported", True, "OutputsMade", ", ".join(job.spec.outputs))


def export_events(job: FineTuneJob, result: TrainingResult | None) -> Iterable[Event]:
    if result and (errors := _errors(job, result)):
        yield Event("Warning", FAILED, errors)


def _errors(job: FineTuneJob, result: TrainingResult) -> str:
    errors = [f"{error.output}: {error.message}" for error in result.output_errors]
    if job.spec.serving and job.spec.serving.merged_weights and result.merged_digest is None:
        errors.append("without merged weights the version is served as an adapter")
    return "; ".join(errors)
