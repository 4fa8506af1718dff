"""The Kubernetes Job that asks an engine the same questions of a served version and of its base model.

It needs no GPU and none of the large images: the scores are computed in the operator's.
"""

from pathlib import PurePosixPath

from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.evaluation import Metric
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    DATASET_NAME,
    ENGINE_API_KEY_VARIABLE,
    ENGINE_PORT,
    EVALUATION_CONFIG_ANNOTATION,
    EVALUATION_CONFIG_FILE,
    EVALUATOR_CONTAINER,
)
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.endings import TERMINATED_EXIT_CODE
from finetune_operator.manifests.common import (
    EVALUATION_LABEL,
    SCRATCH_MOUNTS,
    VERSION_NAME_LABEL,
    VERSION_UID_LABEL,
    Manifest,
    claim_volume,
    config_mount,
    config_volume,
    container_security,
    digest_of,
    environment,
    labels,
    owner_reference,
    pod_failure_policy,
    pod_security,
    scratch_volumes,
    secret_variable,
)
from finetune_operator.manifests.dataset_sources import dataset_source, source_mounts, source_secrets, source_volumes
from finetune_operator.manifests.serving import ENGINE_API_KEY_KEY, adapter_of, artifact_claim, engine_name
from finetune_operator.resources.evaluation import EvaluationDataset, ServedEvaluationStatus, VersionEvaluation
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec

COMPONENT_NAME = "evaluator"
BACKOFF_LIMIT = 3
FINAL_EXIT_CODES = (42, 43, 44, 45, 46, 47)
"""What no second try would change: what the evaluator is told, its dataset, and an engine that refuses."""
NAME_MAX_LENGTH = 63
DIGEST_LENGTH = 12


def evaluation_id(spec: ModelVersionSpec) -> str | None:
    """Of everything that decides the outcome, the engine's parameters included; None where nothing is asked for."""
    wanted, serving = spec.evaluation, spec.serving
    if wanted is None or serving is None or not wanted.metrics or spec.artifact.digest is None:
        return None
    asked = wanted.to_dict() | {"metrics": sorted(wanted.metrics), "require": None}
    return digest_of(
        {"asked": asked, "adapter": spec.artifact.digest, "engine": engine_name(spec, serving)}, DIGEST_LENGTH
    )


def current_evaluation(version: ModelVersion) -> ServedEvaluationStatus | None:
    """What was measured, if it is what the spec asks for now."""
    measured = version.status.evaluation
    return measured if measured and measured.id == evaluation_id(version.spec) else None


def evaluation_job_name(version: ModelVersion, identity: str) -> str:
    """Follows from version and evaluation: whoever makes it twice finds it there."""
    tail = f"-eval-{digest_of([version.metadata.uid, identity])}"
    return f"{version.metadata.name[: NAME_MAX_LENGTH - len(tail)].rstrip('-.')}{tail}"


def evaluation_job(version: ModelVersion, identity: str, config: OperatorConfig) -> Manifest:
    """The Job; its last pod stays until it is deleted, since its message is the result."""
    own = labels(
        COMPONENT_NAME,
        {
            VERSION_UID_LABEL: version.metadata.uid,
            VERSION_NAME_LABEL: version.metadata.name,
            EVALUATION_LABEL: identity,
        },
    )
    told = evaluation_config(version, config).model_dump_json(by_alias=True, exclude_none=True)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": evaluation_job_name(version, identity),
            "namespace": version.metadata.namespace,
            "labels": own,
            "ownerReferences": [owner_reference(version, controller=True)],
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": _wanted(version.spec).timeout_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pod_failure_policy(uncounted=(TERMINATED_EXIT_CODE,), final=FINAL_EXIT_CODES),
            "template": {
                "metadata": {"labels": own, "annotations": {EVALUATION_CONFIG_ANNOTATION: told}},
                "spec": _pod(version, config),
            },
        },
    }


def evaluation_config(version: ModelVersion, config: OperatorConfig) -> ServedEvaluationConfig:
    """What the pod is told."""
    spec = version.spec
    wanted = _wanted(spec)
    if spec.serving is None:
        raise ValueError("only a version that is served is asked anything")
    engine = engine_name(spec, spec.serving)
    adapter = PurePosixPath(adapter_of(version).path)
    return ServedEvaluationConfig(
        engine_url=f"http://{engine}.{version.metadata.namespace}.svc:{ENGINE_PORT}",
        base_model_name=spec.base_model.name,
        served_name=version.metadata.name,
        metrics=tuple(Metric(name) for name in wanted.metrics),
        max_examples=wanted.max_examples,
        max_new_tokens=wanted.max_new_tokens,
        concurrency=wanted.concurrency,
        # Where the trainer's files are, beside the adapter that it published.
        rows_path=str(adapter.parent / DATASET_NAME / "test.jsonl"),
        dataset=_dataset(wanted.dataset, config) if wanted.dataset else None,
    )


def _wanted(spec: ModelVersionSpec) -> VersionEvaluation:
    if spec.evaluation is None:
        raise ValueError("nothing is to be evaluated")
    return spec.evaluation


def _dataset(dataset: EvaluationDataset, config: OperatorConfig) -> DatasetConfig:
    """Every row counts: a label may be one letter long."""
    return DatasetConfig(
        source=dataset_source(dataset),
        format=dataset.format.value,
        test_fraction=0.0,
        min_examples=1,
        min_prompt_characters=1,
        min_response_characters=1,
        database_timeout_seconds=config.database_timeout_seconds,
    )


def _pod(version: ModelVersion, config: OperatorConfig) -> Manifest:
    dataset = _wanted(version.spec).dataset
    claim = artifact_claim(version.spec.artifact.uri)
    return {
        "restartPolicy": "Never",
        "serviceAccountName": config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [
            {
                "name": EVALUATOR_CONTAINER,
                "image": config.operator_image,
                "imagePullPolicy": config.image_pull_policy,
                "args": ["evaluate", EVALUATION_CONFIG_FILE],
                "env": [
                    secret_variable(ENGINE_API_KEY_VARIABLE, config.secret_name, ENGINE_API_KEY_KEY),
                    *(source_secrets(dataset) if dataset else []),
                    *environment({"HOME": "/tmp"}),  # noqa: S108 - an emptyDir
                ],
                "volumeMounts": [
                    config_mount(EVALUATION_CONFIG_FILE),
                    *(source_mounts(dataset) if dataset else [_ARTIFACTS_MOUNT]),
                    SCRATCH_MOUNTS[0],
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": [
            config_volume(EVALUATION_CONFIG_FILE, EVALUATION_CONFIG_ANNOTATION),
            *(source_volumes(dataset) if dataset else [claim_volume("artifacts", claim, read_only=True)]),
            scratch_volumes()[0],
        ],
    }


_ARTIFACTS_MOUNT: Manifest = {"name": "artifacts", "mountPath": ARTIFACTS_ROOT, "readOnly": True}
