"""What a FineTuneJob's status tells of the files that its training left."""

from collections.abc import Iterable

from finetune_operator.contract.artifacts import Output
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.conditions import Finding
from finetune_operator.reconcile.plan import Event
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.outputs import MAX_ARTIFACTS, ArtifactStatus

FAILED = "OutputFailed"
_NO_DIGEST = (
    "MergedWeights: the trainer told no digest of them, without which no server takes them: run the trainer's image of "
    "the operator's release in a new FineTuneJob"
)


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
        if all(error.output is not Output.MERGED_WEIGHTS for error in result.output_errors):
            errors.append(_NO_DIGEST)
        errors.append("the version is served as an adapter")
    return "; ".join(errors)
