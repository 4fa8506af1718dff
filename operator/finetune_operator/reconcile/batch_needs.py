"""What a BatchInference needs before it can ask, and while it does."""

from collections.abc import Sequence

from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.serving import asked_engine
from finetune_operator.reconcile.served_version import NotServed, absent, base_engine, unloaded, version_named
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import KIND, BatchInference
from finetune_operator.resources.modelversion import ModelVersion


def asked_versions(batch: BatchInference) -> tuple[str, ...]:
    """Names of the ModelVersions that must be served."""
    other = batch.spec.compare_with.model_version if batch.spec.compare_with else None
    return tuple(name for name in (batch.spec.model_version, other) if name)


def not_served(batch: BatchInference, versions: Sequence[ModelVersion]) -> NotServed | None:
    """The first that is missing."""
    for name in asked_versions(batch):
        version = version_named(name, versions)
        lacking = unloaded(version, KIND) if version else absent(name, KIND)
        if lacking:
            return lacking
    base_at = base_of(batch, versions)
    return base_at if isinstance(base_at, NotServed) else None


def base_of(batch: BatchInference, versions: Sequence[ModelVersion]) -> str | NotServed | None:
    """Which engine answers for the base model; None where nobody asks."""
    version = version_named(batch.spec.model_version, versions)
    if version is None or not asks_base_model(batch):
        return None
    return base_engine(version, asked_engine(version), versions)


def asks_base_model(batch: BatchInference) -> bool:
    """Beside the version."""
    return batch.spec.compare_with is not None and batch.spec.compare_with.base is True


def no_vote(batch: BatchInference, test: ABTest | None, config: OperatorConfig) -> NotServed | None:
    """Why nobody could vote on the answers."""
    if batch.spec.ab_test is None:
        return None
    name = batch.spec.ab_test.name
    if config.api_url is None:
        return NotServed("NoApi", "spec.abTest needs the api, which this installation lacks: install the chart with it")
    if test is None:
        return NotServed(
            "ABTestNotFound", f"ABTest {name} does not exist: create it, or name another one in a new {KIND}"
        )
    if (test.spec.candidate.model_version, test.spec.baseline) != (batch.spec.model_version, batch.spec.compare_with):
        message = f"ABTest {name} compares others: its candidate must be modelVersion, its baseline compareWith"
        return NotServed("ABTestOfOthers", f"{message}, in a new {KIND}")
    if test.status.verdict:
        return NotServed("ABTestConcluded", f"ABTest {name} has its verdict: name another one in a new {KIND}")
    return None
