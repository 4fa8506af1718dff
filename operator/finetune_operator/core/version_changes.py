"""Which fields of ModelVersions change when one is to be served, or to give way to the one before it. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from finetune_operator.core.decimals import decimal_text
from finetune_operator.resources.evaluation import Metric
from finetune_operator.resources.modelversion import ModelVersion, RequestedState, State

PIN: dict[str, Any] = {"state": RequestedState.DEPLOYED.value}
UNPIN: dict[str, Any] = {"state": None}
TEXT_METRICS = (Metric.ROUGE_L, Metric.TOKEN_F1)
"""Of answers that are texts, as most are."""


def serving_fields(
    gpu_memory_utilization: Decimal | None, max_model_len: int | None, tensor_parallel_size: int | None
) -> dict[str, Any]:
    """For a merge patch of spec.serving: what is left out stays, or gets the default."""
    fields = {
        "gpuMemoryUtilization": None if gpu_memory_utilization is None else decimal_text(gpu_memory_utilization),
        "maxModelLen": max_model_len,
        "tensorParallelSize": tensor_parallel_size,
    }
    return {name: value for name, value in fields.items() if value is not None}


def evaluation_fields(metrics: Iterable[str], max_examples: int | None, saturation: bool | None) -> dict[str, Any]:
    """For a merge patch of spec.evaluation: what is left out stays, or gets the default."""
    fields: dict[str, Any] = {"metrics": list(dict.fromkeys(map(str, metrics)))}
    if max_examples is not None:
        fields["maxExamples"] = max_examples
    if saturation is not None:
        fields["saturation"] = {} if saturation else None
    return fields


def previous_version(active: ModelVersion, family: Iterable[ModelVersion]) -> ModelVersion | None:
    """The one that was active before, by the history of the one that is; none where it is gone or has failed."""
    name = previous_name(active)
    return next((version for version in family if version.metadata.name == name and may_take_over(version)), None)


def previous_name(active: ModelVersion) -> str | None:
    """Of the one that was active before, by the history of the one that is; it may be gone."""
    before = (entry.previous for entry in reversed(active.status.history) if entry.state is State.DEPLOYED)
    return next((name for name in before if name is not None and name != active.metadata.name), None)


def may_take_over(version: ModelVersion) -> bool:
    """Whether the model's answers can go back to it."""
    return not version.deleting and version.status.state is not State.FAILED
