"""How a pod gets at its base model: a directory on a volume, which a container `fetch` fills for models of the hub.

That container alone may write there; trainer and engine read a plain directory, whatever the source is.
"""

from collections.abc import Iterable

from finetune_operator.contract.places import FETCH_CONTAINER, HUB_TOKEN_VARIABLE, MODELS_ROOT, hub_snapshots
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.common import (
    SCRATCH_MOUNTS,
    Manifest,
    claim_volume,
    container_security,
    environment,
    secret_variable,
)
from finetune_operator.resources.common import BaseModelSource, HubModelRef

VOLUME = "models"


def base_model_path(source: BaseModelSource) -> str:
    """Directory of the weights; for the hub the one of all snapshots, where a job does not know its commit yet."""
    if source.hub:
        return hub_snapshots(source.hub.id)
    if source.volume:
        return f"{MODELS_ROOT}/{source.volume.path}"
    return ""


def frozen_model_path(source: BaseModelSource) -> str:
    """Directory of the weights of a ModelVersion, whose revision is a commit."""
    if not (source.hub or source.volume):
        raise ValueError("a base model without weights in this cluster; the API server admits no serving of it")
    return f"{base_model_path(source)}/{source.hub.revision}" if source.hub else base_model_path(source)


def base_model_volumes(source: BaseModelSource, config: OperatorConfig) -> list[Manifest]:
    """The volume of the base model, if its weights are on one; read-only unless the pod has to fill it."""
    if source.hub:
        return [claim_volume(VOLUME, config.base_models_claim, read_only=False)]
    if source.volume:
        return [claim_volume(VOLUME, source.volume.claim_name, read_only=True)]
    return []


def base_model_mounts(source: BaseModelSource) -> list[Manifest]:
    """For those who read it."""
    return [_mount(read_only=True)] if source.hub or source.volume else []


def fetch_container(
    hub: HubModelRef,
    config: OperatorConfig,
    *,
    arguments: Iterable[str] = (),
    mounts: Iterable[Manifest] = (),
) -> Manifest:
    """The init container that downloads the model, unless an earlier one has."""
    reference = hub.token_secret_ref
    token = [secret_variable(HUB_TOKEN_VARIABLE, reference.name, reference.key)] if reference else []
    endpoint = {"HF_ENDPOINT": config.hub_endpoint} if config.hub_endpoint else {}
    return {
        "name": FETCH_CONTAINER,
        "image": config.operator_image,
        "imagePullPolicy": config.image_pull_policy,
        "args": ["fetch-base-model", hub.id, hub.revision, *arguments],
        "env": [
            *token,
            *environment(
                {
                    "HOME": "/tmp",  # noqa: S108 - an emptyDir
                    "HF_HOME": "/tmp/huggingface",  # noqa: S108 - an emptyDir
                    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                    "HF_HUB_DISABLE_TELEMETRY": "1",
                    **endpoint,
                    **config.fetch_env,
                }
            ),
        ],
        "volumeMounts": [_mount(read_only=False), *mounts, SCRATCH_MOUNTS[0]],
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _mount(*, read_only: bool) -> Manifest:
    mount: Manifest = {"name": VOLUME, "mountPath": MODELS_ROOT}
    return mount | {"readOnly": True} if read_only else mount
