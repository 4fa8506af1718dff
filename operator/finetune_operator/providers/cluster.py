"""Asks the API server, when the pod is told to leave, whether anybody still waits for the remote model."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel

from finetune_operator.contract.training import JobIdentity
from finetune_operator.core.fine_tuning_api import NAME_KEY, UID_KEY, JobStatus, RemoteJob
from finetune_operator.core.remote_training import unwanted_because
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.logs import get_logger

logger = get_logger(__name__)


class Stray(BaseModel):
    """A job at the provider whose model nobody waits for."""

    job: str
    status: JobStatus
    fine_tune_job: str
    reason: str


async def strays(jobs: AsyncIterator[RemoteJob]) -> AsyncIterator[Stray]:
    """Those of the jobs that go on though nobody waits for their models; raises `KubeError`.

    Jobs without our metadata are somebody else's, or of a provider that does not keep metadata.
    """
    async with KubeClient.from_environment() as client:
        async for job in jobs:
            metadata = job.metadata or {}
            uid, (namespace, _, name) = metadata.get(UID_KEY), metadata.get(NAME_KEY, "").partition("/")
            if job.status.is_final or not (uid and namespace and name):
                continue
            if reason := unwanted_because(await _get(client, "finetunejobs", namespace, name), None, uid):
                yield Stray(job=job.id, status=job.status, fine_tune_job=f"{namespace}/{name}", reason=reason)


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
