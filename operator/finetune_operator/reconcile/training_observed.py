"""What a reconcile of a FineTuneJob knows of the world besides the resource itself."""

from dataclasses import dataclass

from finetune_operator.contract.training import Progress
from finetune_operator.core.workloads import JobFacts, PodFacts
from finetune_operator.resources.modelversion import ModelVersion


@dataclass(frozen=True)
class Observed:
    """One moment of it."""

    job: JobFacts | None = None
    pods: tuple[PodFacts, ...] = ()
    versions: tuple[ModelVersion, ...] = ()
    progress: Progress | None = None
    published: tuple[str, ...] = ()
    cancellation: JobFacts | None = None
    """The Job that ends the training at its provider."""
    preparation: JobFacts | None = None
    """The Job that makes everything ready before a GPU is taken."""
    preparation_pods: tuple[PodFacts, ...] = ()
