"""How a FineTuneJob tells of what its training left, and of what could not be made."""

from typing import Any

import pytest

from finetune_operator.contract.artifacts import Artifact, ArtifactType, Output, OutputError
from finetune_operator.contract.training import TrainingConfig, TrainingResult
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.manifests.training import training_config
from finetune_operator.reconcile import finetunejob
from finetune_operator.reconcile.plan import Create, Plan
from finetune_operator.reconcile.version_metrics import version_metrics
from finetune_operator.resources.finetunejob import FineTuneJobStatus
from tests.builders import (
    CONFIG,
    NOON,
    job_body,
    job_condition,
    make_job,
    make_result,
    make_version,
    terminated,
    training_pod,
    wire,
)

ADAPTER = Artifact(name="adapter", type=ArtifactType.ADAPTER, size_bytes=638_837, path="adapter")
MERGED = Artifact(name="merged", type=ArtifactType.MERGED_WEIGHTS, size_bytes=14_483_498_112, path="merged")
LOG = Artifact(name="train.log", type=ArtifactType.LOG, size_bytes=8_005, path="train.log")
ERROR = OutputError(output=Output.MERGED_WEIGHTS, message="merging needs 18.6 GiB of memory and 6.0 are free: raise it")
OTHER_ERROR = OutputError(output=Output.GGUF_Q8, message="llama.cpp does not know it")
MERGED_DIGEST = "sha256:" + "b" * 64


def concluded(result: TrainingResult, outputs: tuple[str, ...] = (), **spec: Any) -> Plan:
    """The decision once the trainer has told its result."""
    job = make_job({"outputs": list(outputs), **spec})
    pod = training_pod(prepare=terminated(0), trainer=terminated(0, wire(result)), phase="Succeeded")
    seen = finetunejob.Observed(
        job=job_facts(job_body(job.metadata.uid, conditions=(job_condition("Complete"),))), pods=(pod_facts(pod),)
    )
    return finetunejob.reconcile(job, seen, NOON, CONFIG)


def status_of(plan: Plan) -> FineTuneJobStatus:
    return FineTuneJobStatus.model_validate(plan.status)


def told(**changes: Any) -> TrainingResult:
    return make_result(artifacts=(ADAPTER, LOG), **changes)


def test_the_status_lists_what_was_left() -> None:
    plan = concluded(told())

    assert plan.status is not None
    assert plan.status["artifacts"] == [
        {"name": "adapter", "type": "Adapter", "sizeBytes": 638_837, "path": "adapter"},
        {"name": "train.log", "type": "Log", "sizeBytes": 8_005, "path": "train.log"},
    ]
    assert find(status_of(plan).conditions, "Exported") is None


def test_outputs_that_were_made_are_told_by_a_condition() -> None:
    condition = find(status_of(concluded(told(), ("OllamaModelfile", "UnslothScript"))).conditions, "Exported")

    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "OutputsMade")
    assert condition.message == "OllamaModelfile, UnslothScript"


@pytest.mark.parametrize(
    ("result", "size_bytes"), [(told(), 638_837), (make_result(), None)], ids=["listed", "not listed"]
)
def test_the_version_knows_the_size_of_its_adapter(result: TrainingResult, size_bytes: int | None) -> None:
    plan = concluded(result)
    (made,) = [each.body for each in plan.actions if isinstance(each, Create) and each.plural == "modelversions"]
    assert made["spec"]["artifact"].get("sizeBytes") == size_bytes
    metrics = version_metrics(make_version(1, {"artifact": {"sizeBytes": size_bytes}}), (), None)
    assert (metrics and metrics.model_bytes) == size_bytes


def test_the_version_knows_the_size_of_its_merged_weights() -> None:
    result = told(merged_digest=MERGED_DIGEST)
    listed = result.model_copy(update={"artifacts": (*result.artifacts, MERGED)})
    assert version_of(concluded(listed, ("MergedWeights",)))["artifact"]["mergedSizeBytes"] == MERGED.size_bytes
    assert "mergedSizeBytes" not in version_of(concluded(result, ("MergedWeights",)))["artifact"]
    # Weights of an unknown digest are never served.
    unknown = listed.model_copy(update={"merged_digest": None})
    assert "mergedSizeBytes" not in version_of(concluded(unknown, ("MergedWeights",)))["artifact"]


BOTH = {"sizeBytes": 638_837, "mergedDigest": MERGED_DIGEST, "mergedSizeBytes": 14_483_498_112}
IS_MERGED = {"serving": {"mergedWeights": True}}
SIZES: dict[str, tuple[dict[str, Any], str | None, int | None]] = {
    # The spec, the engine that serves it, and the bytes.
    "an adapter": ({"artifact": BOTH, "serving": {}}, "vllm-a", 638_837),
    "merged weights": ({"artifact": BOTH} | IS_MERGED, "vllm-merged-a", 14_483_498_112),
    "merged weights of an unknown size": (
        {"artifact": BOTH | {"mergedSizeBytes": None}} | IS_MERGED,
        "vllm-merged-a",
        None,
    ),
    "an adapter that is to become merged weights": ({"artifact": BOTH} | IS_MERGED, "vllm-a", 638_837),
    "merged weights that wait for their engine": ({"artifact": BOTH} | IS_MERGED, None, 14_483_498_112),
    "a version that is only registered": ({"artifact": BOTH, "serving": None}, None, 638_837),
}


@pytest.mark.parametrize("case", SIZES)
def test_the_models_size_is_of_what_is_served(case: str) -> None:
    spec, engine, size_bytes = SIZES[case]
    metrics = version_metrics(make_version(1, spec, status={"engine": engine}), (), None)
    assert (metrics and metrics.model_bytes) == size_bytes


def test_an_output_that_could_not_be_made_costs_no_version() -> None:
    plan = concluded(told(output_errors=(ERROR,)), ("MergedWeights",))

    status = status_of(plan)
    exported, succeeded = find(status.conditions, "Exported"), find(status.conditions, "Succeeded")
    assert exported is not None
    assert (exported.status, exported.reason) == ("False", "OutputFailed")
    assert exported.message == f"MergedWeights: {ERROR.message}"
    assert succeeded is not None
    assert succeeded.status == "True"
    assert any(isinstance(action, Create) and action.plural == "modelversions" for action in plan.actions)
    assert [(event.type, event.reason) for event in plan.events][1:] == [("Warning", "OutputFailed")]


def version_of(plan: Plan) -> dict[str, Any]:
    (made,) = [each.body for each in plan.actions if isinstance(each, Create) and each.plural == "modelversions"]
    spec: dict[str, Any] = made["spec"]
    return spec


@pytest.mark.parametrize("serving", [{"mergedWeights": True}, {}], ids=["merged", "as an adapter"])
def test_the_version_knows_its_merged_weights_and_is_served_as_asked(serving: dict[str, bool]) -> None:
    plan = concluded(told(merged_digest=MERGED_DIGEST), ("MergedWeights",), serving=serving)

    spec = version_of(plan)
    assert spec["artifact"]["mergedDigest"] == MERGED_DIGEST
    assert spec["serving"]["mergedWeights"] is serving.get("mergedWeights", False)
    assert [event.reason for event in plan.events] == ["Published"]


def test_weights_that_could_not_be_merged_leave_the_version_to_be_served_as_an_adapter() -> None:
    plan = concluded(told(output_errors=(ERROR,)), ("MergedWeights",), serving={"mergedWeights": True})

    spec = version_of(plan)
    assert "mergedDigest" not in spec["artifact"]
    assert spec["serving"]["mergedWeights"] is False
    exported = find(status_of(plan).conditions, "Exported")
    assert exported is not None
    assert (exported.status, exported.reason) == ("False", "OutputFailed")
    words = "the version is served as an adapter"
    assert exported.message == f"MergedWeights: {ERROR.message}; {words}"
    assert [(event.reason, event.message) for event in plan.events][1:] == [("OutputFailed", exported.message)]


@pytest.mark.parametrize("errors", [(), (OTHER_ERROR,)], ids=["all made", "another one not made"])
def test_merged_weights_of_an_unknown_digest_are_there_and_can_not_be_served(errors: tuple[OutputError, ...]) -> None:
    """As told by a trainer of an earlier release."""
    plan = concluded(told(output_errors=errors), ("MergedWeights", "GgufQ8"), serving={"mergedWeights": True})

    assert version_of(plan)["serving"]["mergedWeights"] is False
    exported = find(status_of(plan).conditions, "Exported")
    assert exported is not None
    assert (exported.status, exported.reason) == ("False", "OutputFailed")
    assert exported.message == "; ".join(
        [
            *(f"GgufQ8: {error.message}" for error in errors),
            "MergedWeights: the trainer told no digest of them, without which no server takes them: run the trainer's "
            "image of the operator's release in a new FineTuneJob",
            "the version is served as an adapter",
        ]
    )


def test_merged_weights_of_an_unknown_digest_are_enough_for_who_does_not_serve_them() -> None:
    plan = concluded(told(), ("MergedWeights",), serving={})

    exported = find(status_of(plan).conditions, "Exported")
    assert exported is not None
    assert (exported.status, exported.message) == ("True", "MergedWeights")


def test_nothing_is_told_where_nothing_was_listed() -> None:
    plan = concluded(make_result())

    assert plan.status is not None
    assert "artifacts" not in plan.status


def test_more_than_a_status_holds_is_left_out() -> None:
    many = tuple(ADAPTER.model_copy(update={"name": f"a{number}"}) for number in range(40))

    artifacts = status_of(concluded(make_result(artifacts=many))).artifacts

    assert artifacts is not None
    assert len(artifacts) == 16


def test_the_trainer_is_told_which_outputs_are_wanted() -> None:
    config: TrainingConfig = training_config(make_job({"outputs": ["UnslothScript", "MergedWeights"]}), CONFIG)

    assert config.outputs == (Output.UNSLOTH_SCRIPT, Output.MERGED_WEIGHTS)
