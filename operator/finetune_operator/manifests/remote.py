"""What differs in a training that a provider does: its container, its token, and what it is told.

The container has a token of its own to ask, when it is told to leave, whether its FineTuneJob still wants the model:
a drained node must not cancel a training that goes on elsewhere, a deleted FineTuneJob must not leave one running.
"""

from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    CONFIG_FILE,
    INTERNAL_TOKEN_VARIABLE,
    JOB_VARIABLE,
    PROVIDER_KEY_VARIABLE,
    TRAINER_CONTAINER,
)
from finetune_operator.contract.remote import RemoteConfig
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.common import (
    INTERNAL_TOKEN_KEY,
    SCRATCH_MOUNTS,
    Manifest,
    config_mount,
    container_security,
    environment,
    resources,
    secret_variable,
)
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.provider import OpenAIProvider

TOKEN_VOLUME = "cluster-access"  # noqa: S105 - a volume's name
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where clients look for a token
TOKEN_SECONDS = 3600
BATCH_JOB_LABEL = "batch.kubernetes.io/job-name"
DEFAULT_RESOURCES: Manifest = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def remote_config(job: FineTuneJob, provider: OpenAIProvider, config: OperatorConfig) -> RemoteConfig:
    """Numbers instead of decimal strings, and the price that the installation knows."""
    model = job.spec.base_model.source.openai
    if model is None:
        raise ValueError("the API server admits no backend OpenAI without baseModel.source.openai")
    multiplier = provider.learning_rate_multiplier
    return RemoteConfig(
        base_url=provider.base_url,
        model=model.model,
        suffix=provider.suffix or job.spec.model,
        learning_rate_multiplier=None if multiplier is None else float(multiplier),
        price_per_million_tokens=config.prices.per_million_tokens.get(model.model),
        currency=config.prices.currency,
    )


def remote_trainer(job: FineTuneJob, provider: OpenAIProvider, config: OperatorConfig) -> Manifest:
    """In the trainer's place, with the operator's image; the only container that sees the API key."""
    return {
        "name": TRAINER_CONTAINER,
        "image": config.operator_image,
        "imagePullPolicy": config.image_pull_policy,
        "args": ["train-remote", CONFIG_FILE],
        "env": [
            secret_variable(PROVIDER_KEY_VARIABLE, provider.secret_ref.name, provider.secret_ref.key),
            secret_variable(INTERNAL_TOKEN_VARIABLE, config.secret_name, INTERNAL_TOKEN_KEY, optional=True),
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": JOB_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{BATCH_JOB_LABEL}']"}}},
            *environment({"HOME": "/tmp"}),  # noqa: S108 - an emptyDir
        ],
        "volumeMounts": [
            config_mount(CONFIG_FILE),
            {"name": "artifacts", "mountPath": ARTIFACTS_ROOT},
            SCRATCH_MOUNTS[0],
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": True},
        ],
        "resources": resources(job.spec.resources) or DEFAULT_RESOURCES,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def token_volume() -> Manifest:
    """What `automountServiceAccountToken` would mount, for this one container."""
    return {
        "name": TOKEN_VOLUME,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}],
                    }
                },
            ]
        },
    }
