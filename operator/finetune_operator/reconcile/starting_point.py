"""Which adapter a FineTuneJob goes on from, or why it can't."""

from collections.abc import Iterable
from dataclasses import dataclass

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.training import StartingAdapter
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.serving import adapter_of
from finetune_operator.resources.common import BaseModelRef
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.resources.starting_point import InitFromStatus


@dataclass(frozen=True)
class NoSuchVersion:
    """Not there yet: both may have been applied at once, in any order."""

    name: str


def starting_adapter(
    job: FineTuneJob, versions: Iterable[ModelVersion], config: OperatorConfig
) -> StartingAdapter | NoSuchVersion | Failure | None:
    """None where the job begins with the base model. The trainer checks the files; here is what needs no pod.

    A training that has begun goes on from what it began with, though the version be gone by now.
    """
    if job.spec.init_from is None:
        return None
    if begun := job.status.init_from:
        return StartingAdapter(model_version=begun.model_version, path=begun.path, digest=begun.digest)
    name = job.spec.init_from.model_version
    version = next((v for v in versions if v.metadata.name == name), None)
    if version is None or version.deleting:
        return NoSuchVersion(name)
    if fact := _obstacle(job, version, config):
        return _refused(f"{name} can't be trained on: {fact[0]}", fact[1])
    adapter = adapter_of(version)
    return StartingAdapter(model_version=name, path=adapter.path, digest=adapter.digest)


def begun_from(job: FineTuneJob, versions: Iterable[ModelVersion], config: OperatorConfig) -> InitFromStatus | None:
    """The same for the status of a training whose Job is there or about to be made."""
    start = starting_adapter(job, versions, config)
    if not isinstance(start, StartingAdapter):
        return None
    return InitFromStatus(model_version=start.model_version, path=start.path, digest=start.digest)


def _obstacle(job: FineTuneJob, version: ModelVersion, config: OperatorConfig) -> tuple[str, str] | None:
    """(the fact, what to change)."""
    uri = version.spec.artifact.uri
    if not uri.startswith(f"volume://{config.artifacts_claim}/"):
        return f"its artifact is {uri}", f"name a version whose adapter is on the volume {config.artifacts_claim}"
    theirs, ours = _identity(version.spec.base_model), _identity(job.spec.base_model)
    if theirs != ours:
        return (
            f"it belongs to the base model {theirs}, this job has {ours}",
            "create a new FineTuneJob with the base model of that version, or without spec.initFrom",
        )
    known = version.spec.lineage.hyperparameters
    for field, key, value in (("r", "loraR", job.spec.lora.r), ("alpha", "loraAlpha", job.spec.lora.alpha)):
        if known.get(key, str(value)) != str(value):
            remedy = f"create a new FineTuneJob with spec.lora.{field}: {known[key]}, or without spec.initFrom"
            return f"its {field} is {known[key]}, this job's is {value}", remedy
    return None


def _identity(base_model: BaseModelRef) -> str:
    """Name and place of the weights; of a hub's model also the revision, since an adapter belongs to its commit."""
    source = base_model.source
    if source.volume:
        return f"{base_model.name} (volume {source.volume.claim_name}/{source.volume.path})"
    if source.hub:
        return f"{base_model.name} (hub {source.hub.id}, revision {source.hub.revision})"
    return base_model.name


def _refused(message: str, remedy: str) -> Failure:
    return Failure(reason=FailureReason.INVALID_CONFIG, message=message, remedy=remedy)
