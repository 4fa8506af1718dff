"""A case of what the CRDs take or refuse: a resource, or a change of one."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.samples import ab_test, batch_inference, fine_tune_job, merged, model_version

Spec = dict[str, Any]

SAMPLES = {
    "FineTuneJob": fine_tune_job,
    "ModelVersion": model_version,
    "ABTest": ab_test,
    "BatchInference": batch_inference,
}
JOB_NAME_TOO_LONG = "metadata.name must have at most 52 characters"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Creation:
    """A resource that differs from the valid sample, and what the refusal says."""

    title: str
    kind: str
    spec: Spec = field(default_factory=dict)
    name: str | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Update:
    """A patch of a resource's spec, and what the refusal says."""

    title: str
    kind: str
    patch: Spec
    created: Spec = field(default_factory=dict)
    refused: str | None = None
    status: Spec | None = None


def immutable_fields(kind: str, changes: Spec) -> Iterator[Update]:
    """A refused update by each of the changes."""
    for name, value in changes.items():
        message = f"{name} is immutable: create a new resource instead"
        yield Update(f"{kind} {name} changes", kind, {name: value}, refused=message)


def sample(kind: str, name: str | None, spec: Spec) -> dict[str, Any]:
    """A valid sample with a name of its own."""
    number = next(_numbers)
    if name is None:
        model = f"plato-{number}"
        if kind == "ModelVersion":
            body = model_version(f"{model}-v1")
            return merged(body, {"spec": spec})
        name = model
    return merged(SAMPLES[kind](name), {"spec": spec})
