"""Base models of jobs and versions that the CRDs take, and those that they refuse."""

from typing import Any

from tests.cluster.schema_cases.case import Creation, Spec

COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
HUB_REVISION = "baseModel.source.hub.revision must be the commit, 40 hexadecimal digits: a branch or tag may move on"
BASE_MODEL_SOURCES = "set exactly one of volume, hub, openai"


def hub(**changes: Any) -> Spec:
    """A base model of the hub instead of one on a volume."""
    return {"baseModel": {"source": {"volume": None, "hub": {"id": "Qwen/Qwen3-0.6B"} | changes}}}


def two_sources() -> Spec:
    return {"baseModel": {"source": {"hub": {"id": "Qwen/Qwen3-0.6B"}}}}


ACCEPTED = [
    Creation("a model of the hub", "FineTuneJob", hub()),
    Creation("a pull request of the hub", "FineTuneJob", hub(revision="refs/pr/1")),
    Creation("a gated model", "FineTuneJob", hub(tokenSecretRef={"name": "hub", "key": "token"})),
    Creation("a version on a commit of the hub", "ModelVersion", hub(revision=COMMIT)),
]

REFUSED = [
    Creation("no base model", "FineTuneJob", {"baseModel": None}, refused="spec.baseModel: Required value"),
    Creation("a base model without a source", "FineTuneJob", {"baseModel": {"source": None}}, refused="Required value"),
    Creation(
        "a base model from nowhere",
        "FineTuneJob",
        {"baseModel": {"source": {"volume": None}}},
        refused=BASE_MODEL_SOURCES,
    ),
    Creation("a base model from two places", "FineTuneJob", two_sources(), refused=BASE_MODEL_SOURCES),
    Creation("a hub's model without an owner", "FineTuneJob", hub(id="gpt2"), refused="hub.id in body should match"),
    Creation("a hub's model by its address", "FineTuneJob", hub(id="https://hub/a/b"), refused="id in body should"),
    Creation("a hub's model that climbs", "FineTuneJob", hub(id="../x"), refused="hub.id in body should match"),
    Creation("a revision that climbs", "FineTuneJob", hub(revision="../main"), refused="revision in body should match"),
    Creation("a token in the spec", "FineTuneJob", hub(tokenSecretRef={"name": "hub"}), refused="Required value"),
    Creation("a version on a branch of the hub", "ModelVersion", hub(revision="main"), refused=HUB_REVISION),
    Creation("a version on no revision", "ModelVersion", hub(), refused=HUB_REVISION),
    Creation("a version on a short commit", "ModelVersion", hub(revision=COMMIT[:7]), refused=HUB_REVISION),
]
