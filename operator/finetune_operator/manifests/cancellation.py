"""The Job that ends a training at its provider when its own pod can't: it is suspended, pending, or was killed.

It belongs to nobody, since it has to outlive a FineTuneJob that is deleted; an hour after its end it is removed.
"""

from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    CONFIG_ANNOTATION,
    CONFIG_FILE,
    PROVIDER_KEY_VARIABLE,
    TRAINER_CONTAINER,
)
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.endings import FINAL_EXIT_CODES
from finetune_operator.core.workloads import QUEUE_LABEL
from finetune_operator.manifests.common import (
    COMPONENT,
    JOB_NAME_LABEL,
    MANAGED_BY,
    OPERATOR_NAME,
    SCRATCH_MOUNTS,
    Manifest,
    claim_volume,
    config_mount,
    config_volume,
    container_security,
    digest_of,
    environment,
    pod_failure_policy,
    pod_security,
    secret_variable,
)
from finetune_operator.manifests.training import COMPONENT_NAME, queue_name, training_config
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.provider import OpenAIProvider

ACTIVE_DEADLINE_SECONDS = 900
TTL_SECONDS = 3600
BACKOFF_LIMIT = 3
LABELS = {MANAGED_BY: OPERATOR_NAME, COMPONENT: COMPONENT_NAME}
RESOURCES: Manifest = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def cancellation_job_name(job: FineTuneJob) -> str:
    """Follows from the uid, as the training's own."""
    return f"{job.metadata.name}-{digest_of(['cancel', job.metadata.uid])}"


def _queue(job: FineTuneJob) -> dict[str, str]:
    queue = queue_name(job)
    return {QUEUE_LABEL: queue} if queue else {}


def cancellation_job(job: FineTuneJob, provider: OpenAIProvider, config: OperatorConfig) -> Manifest:
    """Without the label of the training's pods, whose time is counted."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": cancellation_job_name(job),
            "namespace": job.metadata.namespace,
            "labels": LABELS | {JOB_NAME_LABEL: job.metadata.name} | _queue(job),
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": ACTIVE_DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "podFailurePolicy": pod_failure_policy(uncounted=(), final=FINAL_EXIT_CODES),
            "template": {
                "metadata": {
                    "labels": LABELS,
                    "annotations": {
                        CONFIG_ANNOTATION: training_config(job, config).model_dump_json(
                            by_alias=True, exclude_none=True
                        )
                    },
                },
                "spec": _pod(provider, config),
            },
        },
    }


def _pod(provider: OpenAIProvider, config: OperatorConfig) -> Manifest:
    return {
        "restartPolicy": "Never",
        "serviceAccountName": config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "containers": [
            {
                "name": TRAINER_CONTAINER,
                "image": config.operator_image,
                "imagePullPolicy": config.image_pull_policy,
                "args": ["train-remote", "--cancel", CONFIG_FILE],
                "env": [
                    secret_variable(PROVIDER_KEY_VARIABLE, provider.secret_ref.name, provider.secret_ref.key),
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    *environment({"HOME": "/tmp"}),  # noqa: S108 - an emptyDir
                ],
                "volumeMounts": [
                    config_mount(CONFIG_FILE),
                    {"name": "artifacts", "mountPath": ARTIFACTS_ROOT},
                    SCRATCH_MOUNTS[0],
                ],
                "resources": RESOURCES,
                "securityContext": container_security(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": [
            config_volume(CONFIG_FILE, CONFIG_ANNOTATION),
            claim_volume("artifacts", config.artifacts_claim, read_only=False),
            {"name": "tmp", "emptyDir": {}},
        ],
    }
