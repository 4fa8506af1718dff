"""The Job that makes the dataset and downloads the base model before a GPU is taken.

A scheduler reserves a pod's GPU from its first init container on, while rows are exported and gigabytes downloaded, and
also where the dataset is refused in the end. So where a training wants a device, a Job without one does both first; the
training's own pods find everything there. Without a device their init containers are enough.
"""

from finetune_operator.contract.places import CONFIG_ANNOTATION, CONFIG_FILE
from finetune_operator.contract.training import StartingAdapter
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import GPU_TYPE_LABEL
from finetune_operator.core.endings import FINAL_EXIT_CODES, TERMINATED_EXIT_CODE
from finetune_operator.core.workloads import QUEUE_LABEL
from finetune_operator.manifests.base_models import base_model_volumes
from finetune_operator.manifests.common import (
    JOB_NAME_LABEL,
    PREPARATION_LABEL,
    Manifest,
    claim_volume,
    config_volume,
    digest_of,
    labels,
    owner_reference,
    pod_failure_policy,
    pod_security,
    scheduling,
    scratch_volumes,
)
from finetune_operator.manifests.dataset_sources import source_volumes
from finetune_operator.manifests.training import (
    ARTIFACTS_VOLUME,
    BACKOFF_LIMIT,
    COMPONENT_NAME,
    preparing_containers,
    queue_name,
    training_config,
)
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobSpec


def wants_device(spec: FineTuneJobSpec) -> bool:
    """Whether a pod of the training takes something that is scarce: any extended resource, such as a GPU or a slice."""
    wanted = {**spec.resources.limits, **spec.resources.requests}
    return spec.openai is None and any("/" in name and str(quantity) != "0" for name, quantity in wanted.items())


def preparation_job_name(job: FineTuneJob) -> str:
    """Follows from the uid, as the training's own."""
    return f"{job.metadata.name}-{digest_of(['prepare', job.metadata.uid])}"


def preparation_job(job: FineTuneJob, config: OperatorConfig, start: StartingAdapter | None = None) -> Manifest:
    """Without the label of the training's pods, whose time is counted; it runs beside no GPU, so not for its type."""
    queue = queue_name(job)
    own = labels(COMPONENT_NAME, {PREPARATION_LABEL: preparation_job_name(job), JOB_NAME_LABEL: job.metadata.name})
    told = training_config(job, config, start).model_dump_json(by_alias=True, exclude_none=True)
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": preparation_job_name(job),
            "namespace": job.metadata.namespace,
            "labels": own | ({QUEUE_LABEL: queue} if queue else {}),
            "ownerReferences": [owner_reference(job, controller=True)],
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "suspend": queue is not None,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pod_failure_policy(uncounted=(TERMINATED_EXIT_CODE,), final=FINAL_EXIT_CODES),
            "template": {
                "metadata": {"labels": own, "annotations": {CONFIG_ANNOTATION: told}},
                "spec": _pod(job, config),
            },
        },
    }
    if job.spec.active_deadline_seconds is not None:
        manifest["spec"]["activeDeadlineSeconds"] = job.spec.active_deadline_seconds
    return manifest


def _pod(job: FineTuneJob, config: OperatorConfig) -> Manifest:
    """The same containers one after the other: all but the last one are init containers."""
    *first, last = preparing_containers(job, config)
    placed = scheduling(job.spec.scheduling)
    selector = {name: value for name, value in placed.pop("nodeSelector", {}).items() if name != GPU_TYPE_LABEL}
    return {
        "restartPolicy": "Never",
        "serviceAccountName": config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **({"initContainers": first} if first else {}),
        "containers": [last],
        "volumes": [
            config_volume(CONFIG_FILE, CONFIG_ANNOTATION),
            *base_model_volumes(job.spec.base_model.source, config),
            claim_volume(ARTIFACTS_VOLUME, config.artifacts_claim, read_only=False),
            scratch_volumes()[0],
            *source_volumes(job.spec.dataset),
        ],
        **placed,
        **({"nodeSelector": selector} if selector else {}),
    }
