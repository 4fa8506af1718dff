"""Resources and cluster objects as the API server returns them: a valid default, and what a test wants different."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from finetune_operator.contract.batch_inference import BatchReport, ResultFile
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.evaluation import DomainScore, EvaluationReport, Metric, Score, Speed
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import FETCH_CONTAINER, PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.workloads import JobFacts, job_facts
from finetune_operator.manifests.preparation import preparation_job_name
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.common import API_VERSION, Resource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion

Object = dict[str, Any]
R = TypeVar("R", bound=Resource)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMESPACE = "finetune"
DIGEST = "sha256:" + "a" * 64
CONFIG = OperatorConfig(
    operator_image="registry.example/operator:1",
    trainer_image="registry.example/trainer:1",
    axolotl_image="registry.example/trainer-axolotl:1",
    server_image="registry.example/server:1",
    api_url="http://api.example:8080",
    engine_args=("--dtype", "float32"),
    engine_env={"VLLM_CPU_KVCACHE_SPACE": "1"},
    trainer_env={"UNSLOTH_IS_PRESENT": "1"},
)
BASE_MODEL: Object = {"name": "tiny-llama", "source": {"volume": {"claimName": "models", "path": "tiny-llama"}}}
COMMIT = "c" * 40
HUB_MODEL: Object = {
    "name": "qwen3",
    "source": {"volume": None, "hub": {"id": "Qwen/Qwen3-0.6B", "tokenSecretRef": {"name": "hub", "key": "token"}}},
}
AT_PROVIDER: Object = {
    "serving": None,
    "baseModel": {"name": "gpt-4.1-mini", "source": {"volume": None, "openai": {"model": "gpt-4.1-mini"}}},
    "artifact": {"uri": "openai://ft:gpt-4.1-mini:plato", "digest": None, "baseUrl": "https://provider.test/v1"},
}
"""Spec of a ModelVersion that its provider has trained and serves."""
RATINGS: Object = {"secretRef": {"name": "ratings-db", "key": "url"}, "domain": "philosophy"}


def merged(default: Mapping[str, Any], changes: Mapping[str, Any]) -> Object:
    """Maps are merged, everything else is replaced, and a None takes the key out."""
    result = dict(default)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return {key: value for key, value in result.items() if value is not None}


def custom_object(
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    status: Mapping[str, Any] | None = None,
    *,
    generation: int = 1,
    deleting: bool = False,
    uid: str | None = None,
    resource_version: str = "1",
    labels: Mapping[str, str] | None = None,
) -> Object:
    """A custom resource's JSON."""
    metadata: Object = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": uid or f"uid-of-{name}",
        "generation": generation,
        "resourceVersion": resource_version,
        "creationTimestamp": "2026-01-01T11:00:00Z",
        "labels": dict(labels or {}),
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T11:59:00Z"
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}
    return body | {"status": dict(status)} if status is not None else body


def job_object(spec: Mapping[str, Any] | None = None, *, name: str = "plato-ethics", **options: Any) -> Object:
    """A FineTuneJob's JSON; `options` as of `custom_object`."""
    default = {"model": "plato", "baseModel": BASE_MODEL, "dataset": {"ratings": RATINGS}}
    return custom_object("FineTuneJob", name, merged(default, spec or {}), **options)


def version_object(number: int, spec: Mapping[str, Any] | None = None, **options: Any) -> Object:
    """The JSON of a ModelVersion of the model plato, made by a job of its own; `options` as of `custom_object`."""
    default = {
        "model": "plato",
        "version": number,
        "baseModel": BASE_MODEL,
        "artifact": {"uri": f"volume://artifacts/{NAMESPACE}/plato/job-{number}/adapter", "digest": DIGEST},
        "lineage": {"fineTuneJob": f"plato-job-{number}", "jobUid": f"job-{number}"},
        "serving": {"maxModelLen": 512},
    }
    wanted = merged(default, spec or {})
    name = f"{wanted['model']}-v{wanted['version']}"
    return custom_object("ModelVersion", name, wanted, **options)


def abtest_object(spec: Mapping[str, Any] | None = None, *, name: str = "duel", **options: Any) -> Object:
    """The JSON of an ABTest of plato-v2 against plato-v1; `options` as of `custom_object`."""
    default = {
        "model": "plato",
        "baseline": {"modelVersion": "plato-v1"},
        "candidate": {"modelVersion": "plato-v2"},
        "traffic": {"candidatePercent": 20},
    }
    return custom_object("ABTest", name, merged(default, spec or {}), **options)


def batch_object(spec: Mapping[str, Any] | None = None, *, name: str = "answers", **options: Any) -> Object:
    """The JSON of a BatchInference of plato-v1 on a file of prompts; `options` as of `custom_object`."""
    default = {
        "modelVersion": "plato-v1",
        "dataset": {"volume": {"claimName": "questions", "path": "q.jsonl"}},
    }
    return custom_object("BatchInference", name, merged(default, spec or {}), **options)


def make_job(spec: Mapping[str, Any] | None = None, **options: Any) -> FineTuneJob:
    """A FineTuneJob; changes of its spec as in YAML, `options` as of `custom_object`."""
    return FineTuneJob.parse(job_object(spec, **options))


def make_version(number: int = 1, spec: Mapping[str, Any] | None = None, **options: Any) -> ModelVersion:
    """A ModelVersion of the model plato that wants to be served."""
    return ModelVersion.parse(version_object(number, spec, **options))


def make_test(spec: Mapping[str, Any] | None = None, **options: Any) -> ABTest:
    """An ABTest of plato-v2 against plato-v1."""
    return ABTest.parse(abtest_object(spec, **options))


def make_batch(spec: Mapping[str, Any] | None = None, **options: Any) -> BatchInference:
    """A BatchInference of plato-v1 on a file of prompts."""
    return BatchInference.parse(batch_object(spec, **options))


def after(resource: R, plan: Plan) -> R:
    """The resource once the plan's status has been written and read again."""
    return type(resource).parse(resource.to_dict() | {"status": plan.status or {}})


def condition(
    type_: str, status: str = "True", *, reason: str = "Test", generation: int = 1, message: str = ""
) -> Object:
    """One condition that has been so since an hour."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T11:00:00Z",
        "observedGeneration": generation,
    }


def job_body(
    owner_uid: str,
    *,
    name: str = "plato-ethics-1",
    suspended: bool = False,
    conditions: tuple[Object, ...] = (),
    labels: Mapping[str, str] | None = None,
    ttl_seconds: int | None = None,
    held: bool = False,
) -> Object:
    """A batch/v1 Job; if it is suspended, by the operator, or `held` so by somebody else."""
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "labels": dict(labels or {}),
            "ownerReferences": [{"uid": owner_uid}],
            "annotations": {"finetune.dev/suspended": "true"} if suspended and not held else {},
        },
        "spec": {"suspend": suspended or held}
        | ({} if ttl_seconds is None else {"ttlSecondsAfterFinished": ttl_seconds}),
        "status": {"conditions": list(conditions)},
    }


def job_condition(type_: str, reason: str = "", message: str = "", *, since: str = "") -> Object:
    """A condition of a batch/v1 Job that holds."""
    condition = {"type": type_, "status": "True", "reason": reason, "message": message}
    return condition | ({"lastTransitionTime": since} if since else {})


def prepared(job: FineTuneJob) -> JobFacts:
    """The Job that has made everything ready for a training that takes GPUs."""
    name = preparation_job_name(job)
    return job_facts(job_body(job.metadata.uid, name=name, conditions=(job_condition("Complete"),)))


def running() -> Object:
    """State of a container that runs."""
    return {"running": {"startedAt": "2026-01-01T11:30:00Z"}}


def waiting(reason: str, message: str = "") -> Object:
    """State of a container that does not run yet."""
    return {"waiting": {"reason": reason, "message": message}}


def terminated(exit_code: int, message: str = "", reason: str = "", finished: str = "") -> Object:
    """State of a container that has ended."""
    state: Object = {
        "exitCode": exit_code,
        "message": message,
        "reason": reason or ("Error" if exit_code else "Completed"),
    }
    return {"terminated": state | ({"finishedAt": finished} if finished else {})}


def pod_body(
    name: str = "pod-1",
    *,
    phase: str = "Running",
    created: str = "2026-01-01T11:30:00Z",
    init: Mapping[str, Object] | None = None,
    main: Mapping[str, Object] | None = None,
    conditions: tuple[Object, ...] = (),
    ip: str | None = "10.0.0.1",
    labels: Mapping[str, str] | None = None,
    reason: str = "",
    message: str = "",
) -> Object:
    """A pod; `init` and `main` give the states of its containers by name."""
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "creationTimestamp": created,
            "labels": dict(labels or {}),
        },
        "spec": {},
        "status": {
            "phase": phase,
            "reason": reason,
            "message": message,
            "podIP": ip,
            "conditions": list(conditions),
            "initContainerStatuses": [{"name": key, "state": state} for key, state in (init or {}).items()],
            "containerStatuses": [{"name": key, "state": state} for key, state in (main or {}).items()],
        },
    }


def training_pod(
    name: str = "pod-1",
    *,
    prepare: Object | None = None,
    fetch: Object | None = None,
    trainer: Object | None = None,
    **options: Any,
) -> Object:
    """A pod of a training; `options` as of `pod_body`."""
    return pod_body(
        name,
        init={name: state for name, state in ((PREPARE_CONTAINER, prepare), (FETCH_CONTAINER, fetch)) if state},
        main={TRAINER_CONTAINER: trainer} if trainer else {},
        **options,
    )


def deployment_body(name: str, *, revision: str = "", replicas: int = 1, conditions: tuple[Object, ...] = ()) -> Object:
    """An apps/v1 Deployment of an engine."""
    return {
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "annotations": {"finetune.dev/revision": revision},
        },
        "spec": {"replicas": replicas},
        "status": {"conditions": list(conditions)},
    }


REPORT = DatasetReport(rows=90, test_rows=10, digest="sha256:" + "d" * 64)


def make_result(**changes: Any) -> TrainingResult:
    """What a trainer says that succeeded."""
    result = TrainingResult(
        adapter_digest=DIGEST,
        final_loss=0.234,
        best_loss=0.189,
        test_loss=0.3,
        base_test_loss=2.5,
        steps=600,
        epochs=3.0,
        train_seconds=1234.5,
        dataset=REPORT,
    )
    return result.model_copy(update=changes)


EVALUATED = EvaluationReport(
    examples=12,
    scores=(Score(metric=Metric.ROUGE_L, base=0.12, fine_tuned=0.41),),
    domains=(DomainScore(domain="ethics", examples=9, metric=Metric.ROUGE_L, base=0.1, fine_tuned=0.5),),
    base_speed=Speed(
        mean_latency_seconds=1.0,
        seconds_per_answer=0.25,
        tokens_per_second=80.0,
        p95_latency_seconds=2.0,
        mean_seconds_to_first_token=0.1,
    ),
    fine_tuned_speed=Speed(
        mean_latency_seconds=1.1,
        seconds_per_answer=0.5,
        tokens_per_second=70.0,
        p95_latency_seconds=2.1,
        mean_seconds_to_first_token=0.2,
    ),
)
"""What an evaluator says of a served version."""


def make_result_file(served_name: str = "plato-v1", **changes: Any) -> ResultFile:
    """The answers of one model to twelve rows."""
    file = ResultFile(
        served_name=served_name,
        name=f"results/{served_name}.jsonl",
        rows=12,
        failed=0,
        prompt_tokens=120,
        completion_tokens=60,
        size_bytes=1000,
        sha256="f" * 64,
    )
    return file.model_copy(update=changes)


def make_batch_report(*files: ResultFile) -> BatchReport:
    """What the pod of a batch inference says at its end."""
    return BatchReport(rows=12, files=files or (make_result_file(),), digest=DIGEST)


def make_failure(reason: FailureReason, message: str = "the fact", remedy: str = "the remedy") -> Failure:
    """What a container says that gave up."""
    return Failure(reason=reason, message=message, remedy=remedy)


def wire(message: DatasetReport | TrainingResult | BatchReport | Failure) -> str:
    """The message as a container writes it."""
    return message.model_dump_json(by_alias=True)
