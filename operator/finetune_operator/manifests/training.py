"""The Kubernetes Job of one FineTuneJob.

Its pod prepares the dataset in an init container, since only that one needs the database, and trains in the main one.
The configuration travels in the pod's own annotation, so that it can't differ from the pod that reads it.
"""

from finetune_operator.contract.artifacts import Output
from finetune_operator.contract.base_models import HubModel
from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.evaluation import EvaluationConfig, Metric
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    CONFIG_ANNOTATION,
    CONFIG_FILE,
    INTERNAL_TOKEN_VARIABLE,
    PREPARE_CONTAINER,
    PROGRESS_PATH,
    TRAINER_CONTAINER,
)
from finetune_operator.contract.training import JobIdentity, LoraConfig, StartingAdapter, TrainingConfig
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import GPU_TYPE_LABEL
from finetune_operator.core.datasets import rating_difference
from finetune_operator.core.endings import FINAL_EXIT_CODES, PEERS_LOST_EXIT_CODE, TERMINATED_EXIT_CODE
from finetune_operator.core.workloads import QUEUE_LABEL
from finetune_operator.manifests.base_models import (
    base_model_mounts,
    base_model_path,
    base_model_volumes,
    fetch_container,
)
from finetune_operator.manifests.common import (
    INTERNAL_TOKEN_KEY,
    JOB_NAME_LABEL,
    JOB_UID_LABEL,
    SCRATCH_MOUNTS,
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
    resources,
    scheduling,
    scratch_volumes,
    secret_variable,
)
from finetune_operator.manifests.dataset_sources import (
    dataset_source,
    source_mounts,
    source_secrets,
    source_volumes,
    stored_source,
)
from finetune_operator.manifests.nodes import gpus_per_node, group_arguments, one_pod_a_node, processes
from finetune_operator.manifests.remote import remote_config, remote_trainer, token_volume
from finetune_operator.manifests.training_parameters import tracking_config, tracking_secrets, training_parameters
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobSpec, Method

COMPONENT_NAME = "trainer"
BACKOFF_LIMIT = 3
TERMINATION_GRACE_SECONDS = 60
CONFIG_MOUNT: Manifest = config_mount(CONFIG_FILE)
ARTIFACTS_VOLUME = "artifacts"
ARTIFACTS_MOUNT: Manifest = {"name": ARTIFACTS_VOLUME, "mountPath": ARTIFACTS_ROOT}


def training_job_name(job: FineTuneJob) -> str:
    """Follows from the uid: a re-created FineTuneJob gets a Job of its own, a retry finds its own again."""
    return f"{job.metadata.name}-{digest_of(job.metadata.uid)}"


def training_labels(job: FineTuneJob) -> dict[str, str]:
    """By which the Job and its pods are found."""
    return labels(COMPONENT_NAME, {JOB_UID_LABEL: job.metadata.uid, JOB_NAME_LABEL: job.metadata.name})


def queue_name(job: FineTuneJob) -> str | None:
    """Kueue's LocalQueue that the user named; the one label of a FineTuneJob that goes to its Job."""
    return job.metadata.labels.get(QUEUE_LABEL) or None


def training_job(job: FineTuneJob, config: OperatorConfig, start: StartingAdapter | None = None) -> Manifest:
    """The Job; retried by Kubernetes, except where the exit code says that trying again is useless."""
    spec = job.spec
    queue = queue_name(job)
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": training_job_name(job),
            "namespace": job.metadata.namespace,
            "labels": training_labels(job) | ({QUEUE_LABEL: queue} if queue else {}),
            "ownerReferences": [owner_reference(job, controller=True)],
        },
        "spec": {
            **one_pod_a_node(spec),
            "backoffLimit": BACKOFF_LIMIT,
            # Kueue starts it; until then it must have no pod, even where Kueue's webhook is away.
            "suspend": spec.suspend or queue is not None,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": pod_failure_policy(uncounted=_uncounted_exit_codes(spec), final=FINAL_EXIT_CODES),
            "template": {
                "metadata": {
                    "labels": training_labels(job),
                    "annotations": {
                        CONFIG_ANNOTATION: training_config(job, config, start).model_dump_json(
                            by_alias=True, exclude_none=True
                        )
                    },
                },
                "spec": _pod(job, config),
            },
        },
    }
    if spec.active_deadline_seconds is not None:
        manifest["spec"]["activeDeadlineSeconds"] = spec.active_deadline_seconds
    return manifest


def _uncounted_exit_codes(spec: FineTuneJobSpec) -> list[int]:
    """The pod that others lost has its own exit code; theirs says only that they can't go on without it."""
    return [TERMINATED_EXIT_CODE] if spec.nodes == 1 else [PEERS_LOST_EXIT_CODE, TERMINATED_EXIT_CODE]


def _pod(job: FineTuneJob, config: OperatorConfig) -> Manifest:
    return {
        **({"subdomain": training_job_name(job)} if job.spec.nodes > 1 else {}),
        "restartPolicy": "Never",
        "serviceAccountName": config.remote_service_account if job.spec.openai else config.workload_service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_security(),
        "initContainers": preparing_containers(job, config),
        "containers": [_main_container(job, config)],
        "volumes": _volumes(job, config),
        **scheduling(job.spec.scheduling),
    }


def preparing_containers(job: FineTuneJob, config: OperatorConfig) -> list[Manifest]:
    """What must have ended well before a trainer starts; each does nothing where an earlier one has done it."""
    return [_prepare(job, config), *_fetch(job, config)]


def _prepare(job: FineTuneJob, config: OperatorConfig) -> Manifest:
    return {
        "name": PREPARE_CONTAINER,
        "image": config.operator_image,
        "imagePullPolicy": config.image_pull_policy,
        "args": ["prepare", CONFIG_FILE],
        "env": [*source_secrets(job.spec.dataset), *_api_token(job, config), *environment({"HOME": "/tmp"})],  # noqa: S108 - an emptyDir
        "volumeMounts": [*_common_mounts(job), *source_mounts(job.spec.dataset)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _api_token(job: FineTuneJob, config: OperatorConfig) -> list[Manifest]:
    """For files that the api keeps, without which nothing can be prepared, and for the log, which is worth less."""
    is_optional = job.spec.dataset.stored is None
    return [secret_variable(INTERNAL_TOKEN_VARIABLE, config.secret_name, INTERNAL_TOKEN_KEY, optional=is_optional)]


def _fetch(job: FineTuneJob, config: OperatorConfig) -> list[Manifest]:
    """After the preparation: an empty dataset fails before gigabytes are downloaded."""
    hub = job.spec.base_model.source.hub
    if hub is None:
        return []
    mounts = [CONFIG_MOUNT, ARTIFACTS_MOUNT]
    return [fetch_container(hub, config, arguments=("--job", CONFIG_FILE), mounts=mounts)]


def _main_container(job: FineTuneJob, config: OperatorConfig) -> Manifest:
    provider = job.spec.openai
    return remote_trainer(job, provider, config) if provider else _trainer(job, config)


def _trainer(job: FineTuneJob, config: OperatorConfig) -> Manifest:
    return {
        "name": TRAINER_CONTAINER,
        "image": config.trainer_image_of(job.spec.backend.value),
        "imagePullPolicy": config.image_pull_policy,
        "args": ["--config", CONFIG_FILE, *group_arguments(job.spec, training_job_name(job))],
        "env": [
            secret_variable(INTERNAL_TOKEN_VARIABLE, config.secret_name, INTERNAL_TOKEN_KEY, optional=True),
            *tracking_secrets(job),
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *environment({"HOME": "/tmp", **config.trainer_env}),  # noqa: S108 - an emptyDir
        ],
        "volumeMounts": [*_common_mounts(job), *SCRATCH_MOUNTS[1:]],
        "resources": resources(job.spec.resources),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _common_mounts(job: FineTuneJob) -> list[Manifest]:
    models = base_model_mounts(job.spec.base_model.source)
    return [CONFIG_MOUNT, *models, ARTIFACTS_MOUNT, SCRATCH_MOUNTS[0]]


def _volumes(job: FineTuneJob, config: OperatorConfig) -> list[Manifest]:
    return [
        config_volume(CONFIG_FILE, CONFIG_ANNOTATION),
        *_models_volumes(job, config),
        claim_volume(ARTIFACTS_VOLUME, config.artifacts_claim, read_only=False),
        *scratch_volumes(),
        *source_volumes(job.spec.dataset),
    ]


def _models_volumes(job: FineTuneJob, config: OperatorConfig) -> list[Manifest]:
    """Where the base model is, or what a training at a provider has instead."""
    return base_model_volumes(job.spec.base_model.source, config) or [token_volume()]


def training_config(job: FineTuneJob, config: OperatorConfig, start: StartingAdapter | None = None) -> TrainingConfig:
    """The spec as the pod reads it: numbers instead of decimal strings, mounted paths instead of claims."""
    spec = job.spec
    hub = spec.base_model.source.hub
    return TrainingConfig(
        job=JobIdentity(namespace=job.metadata.namespace, name=job.metadata.name, uid=job.metadata.uid),
        model=spec.model,
        method=spec.method.value,
        backend=spec.backend.value,
        base_model_name=spec.base_model.name,
        base_model_path=base_model_path(spec.base_model.source),
        base_model_hub=HubModel(id=hub.id, revision=hub.revision) if hub else None,
        remote=remote_config(job, spec.openai, config) if spec.openai else None,
        dataset=_dataset_config(job, config),
        lora=_lora_config(job),
        training=training_parameters(spec.training),
        evaluation=_evaluation_config(job),
        outputs=tuple(Output(name) for name in spec.outputs),
        init_from=start,
        report_to=tracking_config(job),
        processes=processes(spec) if processes(spec) > 1 else None,
        gpu_type=_only_gpu_type(spec),
        progress_url=f"{config.api_url}{PROGRESS_PATH}" if config.api_url else None,
    )


def _only_gpu_type(spec: FineTuneJobSpec) -> str | None:
    """Whose memory bounds each process: a whole model on each GPU. A slice has less, the CPU asks for none."""
    return spec.scheduling.node_selector.get(GPU_TYPE_LABEL) if gpus_per_node(spec) else None


def _evaluation_config(job: FineTuneJob) -> EvaluationConfig | None:
    """The losses are always measured, so that requirements on them alone ask for nothing more."""
    wanted = job.spec.evaluation
    if wanted is None or not wanted.metrics:
        return None
    return EvaluationConfig(
        metrics=tuple(Metric(name) for name in wanted.metrics),
        max_examples=wanted.max_examples,
        max_new_tokens=wanted.max_new_tokens,
        timeout_seconds=wanted.timeout_seconds,
    )


def _lora_config(job: FineTuneJob) -> LoraConfig:
    lora = job.spec.lora
    chosen = LoraConfig(r=lora.r, alpha=lora.alpha, dropout=float(lora.dropout))
    return chosen.model_copy(update={"target_modules": lora.target_modules}) if lora.target_modules else chosen


def _dataset_config(job: FineTuneJob, config: OperatorConfig) -> DatasetConfig:
    dataset, namespace = job.spec.dataset, job.metadata.namespace
    stored = dataset.stored
    validation = stored.validation_path if stored else None
    return DatasetConfig(
        source=dataset_source(dataset, namespace, config),
        validation=stored_source(validation, namespace, config) if validation else None,
        format="DPO" if job.spec.method is Method.DPO else dataset.format.value,
        test_fraction=float(dataset.test_fraction),
        min_examples=dataset.min_examples,
        min_prompt_characters=dataset.min_prompt_characters,
        min_response_characters=dataset.min_response_characters,
        max_characters=dataset.max_characters,
        min_rating_difference=rating_difference(
            dataset.min_rating_difference,
            None if dataset.min_confidence_diff is None else float(dataset.min_confidence_diff),
        ),
        max_bytes=dataset.max_bytes,
        seed=job.spec.training.seed,
        database_timeout_seconds=config.database_timeout_seconds,
    )
