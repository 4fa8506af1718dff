"""Asks the API server, when the pod is told to leave, whether anybody still waits for the remote model."""

from typing import Any

from finetune_operator.contract.training import JobIdentity
from finetune_operator.core.remote_training import unwanted_because
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.logs import get_logger

logger = get_logger(__name__)


async def why_unwanted(job: JobIdentity, workload: str) -> str | None:
    """The reason to cancel, or None to let the training go on; so too where the API server does not answer."""
    try:
        async with KubeClient.from_environment() as client:
            found = await _get(client, "finetunejobs", job.namespace, job.name)
            return unwanted_because(found, await _get(client, "jobs", job.namespace, workload), job.uid)
    except KubeError as error:
        logger.warning("the cluster can't be asked; the training at the provider goes on", error=str(error))
        return None


async def _get(client: KubeClient, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return await client.get(plural, namespace, name)
    except NotFound:
        return None
