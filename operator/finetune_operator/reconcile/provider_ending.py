"""What a training at a provider leaves behind when it ends before its time: a job that goes on, and costs.

Its own pod cancels it when it is told to leave. Where there is no such pod, or where it was stopped while it made the
job, a Job of its own does: the operator has no key.
"""

from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.workloads import JobFacts
from finetune_operator.manifests.cancellation import cancellation_job
from finetune_operator.reconcile.plan import Create
from finetune_operator.reconcile.training_outlook import Outlook
from finetune_operator.resources.finetunejob import FineTuneJob, Phase

# Of a pod that was killed, or of a Job that was stopped. What a container says by itself is of a job that has ended.
UNTOLD_REASONS = frozenset(
    {
        FailureReason.DEADLINE_EXCEEDED,
        FailureReason.TRAINER_FAILED,
        FailureReason.KILLED,
        FailureReason.OUT_OF_MEMORY,
        FailureReason.STORAGE_EXCEEDED,
    }
)


def may_go_on(job: FineTuneJob) -> bool:
    """Whether there may be a job at the provider that this training has begun."""
    return job.spec.openai is not None and job.status.job_name is not None


def cancelling_at_provider(job: FineTuneJob, config: OperatorConfig) -> tuple[Create, Outlook]:
    """The Job to make, and what is told meanwhile."""
    if job.spec.openai is None:
        raise ValueError(f"{job.metadata.name} is no training at a provider")
    manifest = cancellation_job(job, job.spec.openai, config)
    message = f"Job {manifest['metadata']['name']} cancels the training at its provider"
    phase = Phase.TRAINING if job.status.phase is Phase.TRAINING else Phase.PENDING
    outlook = Outlook(phase, "CancellingAtProvider", message)
    return Create("jobs", manifest, job.metadata.uid), outlook


def has_ended(cancellation: JobFacts) -> bool:
    """Or never begins: Kueue lets no Job start that has no queue, where it manages those, too."""
    is_held = cancellation.suspended and cancellation.queue is None
    return cancellation.complete or cancellation.failed_reason is not None or is_held


def unconfirmed(cancellation: JobFacts | None) -> str | None:
    """What to do where nobody could cancel; None where it is done."""
    if cancellation is None or cancellation.complete:
        return None
    return (
        f"Job {cancellation.name} could not cancel at the provider, where the training may go on and cost: "
        "see its log, and look with `finetune-operator remote strays`"
    )
