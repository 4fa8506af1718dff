"""The Kubernetes Job of a process that asks engines: one pod, no GPU, and none of the large images.

What it asks is in the pod's own annotation; its last pod stays until it is deleted, since its message is the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_operator.contract.base import Message
from finetune_operator.contract.places import ARTIFACTS_ROOT, ENGINE_API_KEY_VARIABLE
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.endings import TERMINATED_EXIT_CODE
from finetune_operator.core.workloads import BASE_ENGINE_LABEL
from finetune_operator.manifests.common import (
    SCRATCH_MOUNTS,
    Manifest,
    claim_volume,
    config_mount,
    config_volume,
    container_security,
    environment,
    owner_reference,
    pod_failure_policy,
    pod_security,
    scratch_volumes,
    secret_variable,
)
from finetune_operator.manifests.dataset_sources import AnyDataset, source_mounts, source_secrets, source_volumes
from finetune_operator.manifests.serving import ENGINE_API_KEY_KEY
from finetune_operator.resources.common import Resource

BACKOFF_LIMIT = 3
FINAL_EXIT_CODES = (42, 43, 44, 45, 46, 47)
"""What no second try would change: what the process is told, its dataset, and an engine that refuses."""


@dataclass(frozen=True)
class Artifacts:
    """The volume of artifacts as the process has it."""

    claim_name: str
    read_only: bool


@dataclass(frozen=True)
class Asking:
    """What one such Job differs in from another. `config_file` is where its `config` is mounted."""

    job_name: str
    labels: Mapping[str, str]
    container: str
    command: str
    config: Message
    config_file: str
    config_annotation: str
    dataset: AnyDataset | None
    artifacts: Artifacts | None
    deadline_seconds: int | None
    variables: Sequence[Manifest] = ()
    base_engine: str | None = None
    """Asked for the base model, where that may be another one one day."""


def asking_job(owner: Resource, asking: Asking, config: OperatorConfig) -> Manifest:
    """The Job; deterministic, so that whoever makes it twice finds it there."""
    told = asking.config.model_dump_json(by_alias=True, exclude_none=True)
    own = dict(asking.labels)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": asking.job_name,
            "namespace": owner.metadata.namespace,
            "labels": own | ({BASE_ENGINE_LABEL: asking.base_engine} if asking.base_engine else {}),
            "ownerReferences": [owner_reference(owner, controller=True)],
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            **({"activeDeadlineSeconds": asking.deadline_seconds} if asking.deadline_seconds else {}),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pod_failure_policy(uncounted=(TERMINATED_EXIT_CODE,), final=FINAL_EXIT_CODES),
            "template": {
                "metadata": {"labels": own, "annotations": {asking.config_annotation: told}},
                "spec": _pod(asking, config),
            },
        },
    }


def _pod(asking: Asking, config: OperatorConfig) -> Manifest:
    dataset, artifacts = asking.dataset, asking.artifacts
    return {
        "restartPolicy": "Never",
        "serviceAccountName": config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [
            {
                "name": asking.container,
                "image": config.operator_image,
                "imagePullPolicy": config.image_pull_policy,
                "args": [asking.command, asking.config_file],
                "env": [
                    secret_variable(ENGINE_API_KEY_VARIABLE, config.secret_name, ENGINE_API_KEY_KEY),
                    *(source_secrets(dataset) if dataset else []),
                    *asking.variables,
                    *environment({"HOME": "/tmp"}),  # noqa: S108 - an emptyDir
                ],
                "volumeMounts": [
                    config_mount(asking.config_file),
                    *(source_mounts(dataset) if dataset else []),
                    *([_mount(artifacts)] if artifacts else []),
                    SCRATCH_MOUNTS[0],
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": [
            config_volume(asking.config_file, asking.config_annotation),
            *(source_volumes(dataset) if dataset else []),
            *([_volume(artifacts)] if artifacts else []),
            scratch_volumes()[0],
        ],
    }


def _mount(artifacts: Artifacts) -> Manifest:
    mount: Manifest = {"name": "artifacts", "mountPath": ARTIFACTS_ROOT}
    return mount | ({"readOnly": True} if artifacts.read_only else {})


def _volume(artifacts: Artifacts) -> Manifest:
    return claim_volume("artifacts", artifacts.claim_name, read_only=artifacts.read_only)
