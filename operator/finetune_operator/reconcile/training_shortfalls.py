"""What a training succeeded without, though it was asked for: its evaluation, or its best checkpoint."""

from collections.abc import Iterable

from finetune_operator.contract.training import LostCheckpoint, TrainingResult
from finetune_operator.core.conditions import Finding
from finetune_operator.reconcile.plan import Event
from finetune_operator.resources.finetunejob import FineTuneJob

NOT_EVALUATED = "EvaluationFailed"
NOT_THE_BEST = "BestCheckpointLost"


def shortfalls(job: FineTuneJob, result: TrainingResult) -> Iterable[Finding]:
    """The conditions `Evaluated` and `BestPublished`, each where it was asked for; the job succeeds without them."""
    report = result.evaluation
    if report and report.error:
        yield Finding("Evaluated", False, NOT_EVALUATED, report.error)
    elif report and job.spec.evaluation:
        yield Finding("Evaluated", True, "Evaluated", f"{report.examples} held-out rows")
    if result.lost_best:
        yield Finding("BestPublished", False, NOT_THE_BEST, _told(result.lost_best))
    elif job.spec.training.early_stopping:
        yield Finding("BestPublished", True, "BestPublished", "the state of the lowest held-out loss is published")


def shortfall_events(result: TrainingResult | None) -> Iterable[Event]:
    if result and result.evaluation and result.evaluation.error:
        yield Event("Warning", NOT_EVALUATED, result.evaluation.error)
    if result and result.lost_best:
        yield Event("Warning", NOT_THE_BEST, _told(result.lost_best))


def _told(lost: LostCheckpoint) -> str:
    loss = lost.published_eval_loss
    published = f"loss {loss:.4g}" if loss is not None else "never evaluated"
    return (
        f"the checkpoint of the best evaluation (step {lost.step}, loss {lost.eval_loss:.4g}) is damaged or gone; "
        f"published is step {lost.published_step} ({published}): look for errors of the artifacts volume, and train "
        "again if the difference matters"
    )
