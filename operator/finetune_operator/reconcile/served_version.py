"""Why a version that somebody needs does not answer here."""

from collections.abc import Iterable
from typing import NamedTuple

from finetune_operator.core.conditions import is_true
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.routing import base_engines, is_loaded
from finetune_operator.core.workloads import JobFacts
from finetune_operator.reconcile.engine_sharing import Versions, served
from finetune_operator.resources.modelversion import ModelVersion


class NotServed(NamedTuple):
    """A reason and a message with what to change."""

    reason: str
    message: str


def version_named(name: str, versions: Iterable[ModelVersion]) -> ModelVersion | None:
    return next((version for version in versions if version.metadata.name == name), None)


def absent(name: str, kind: str) -> NotServed:
    """`kind` is of the resource that names the version."""
    message = f"ModelVersion {name} does not exist: create it, or name another one in a new {kind}"
    return NotServed("VersionNotFound", message)


def unloaded(version: ModelVersion, kind: str) -> NotServed | None:
    """None where an engine has it loaded; some versions are never loaded as they are."""
    name = version.metadata.name
    if version.spec.artifact.base_url:
        message = f"ModelVersion {name} answers at its provider, not in this cluster: create a new {kind} of others"
        return NotServed("VersionNotServed", message)
    if version.spec.serving is None:
        return NotServed("VersionNotServed", f"ModelVersion {name} is only registered: set its spec.serving")
    if not is_true(version.status.conditions, "Loaded"):
        return NotServed("VersionNotLoaded", f"waiting for ModelVersion {name} to be loaded")
    return None


def base_engine(version: ModelVersion, engine: str | None, versions: Iterable[ModelVersion]) -> str | NotServed:
    """Which engine is asked for the base model of a version that answers from `engine`: the same, if it serves both."""
    if engine and not is_merged_engine(engine):
        return engine
    base_model, name = version.spec.base_model, version.metadata.name
    # What its status tells of itself may be the engine that it is leaving.
    if others := base_engines(base_model, (other for other in versions if other.metadata.name != name)):
        return others[0]
    message = f"no engine serves base model {base_model.name}: that of {name} has its merged weights alone"
    remedy = f"have a version of {base_model.name} served as an adapter (spec.serving without mergedWeights)"
    return NotServed("BaseModelNotServed", f"{message}; {remedy}")


def asks_in_vain(job: JobFacts, base_at: str | NotServed | None, versions: Versions) -> bool:
    """Whether the Job asks for the base model at an engine that is gone for good, while another one has it.

    An engine that is only away for a moment is waited for, unless the Job has failed by then. The next Job is told of
    an engine that is there, hence they don't follow each other without an end.
    """
    asked = job.base_engine
    if asked is None or not isinstance(base_at, str) or asked == base_at or job.complete:
        return False
    has_it = any(version.status.engine == asked and is_loaded(version) for version in versions)
    return not has_it and (job.failed_reason is not None or not served(asked, len(versions), versions))
