"""The last lines of a training's log: its pod's, with the rights of who asks, and those that it told the api."""

from collections import deque
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from finetune_operator.kube.errors import KubeError
from finetune_operator.manifests.common import JOB_UID_LABEL
from finetune_operator.store import job_logs
from finetune_operator.web.acting import Acting
from finetune_operator.web.services import Object, Services

TAIL_LINES = 200
TAIL_MAX_BYTES = 262_144
BAD_REQUEST = 400


class KeptLog(BaseModel):
    """The last lines of a container, as it told them."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    container: str
    """`prepare`, which makes the dataset, or `trainer`."""
    text: str
    """At most 200 lines and 64 KiB."""
    time: datetime
    """When it told them."""


class KeptLogs(BaseModel):
    """Of each container that has told the api of its log, in the order in which they run."""

    model_config = ConfigDict(frozen=True)

    logs: tuple[KeptLog, ...]


async def kept_logs(services: Services, job: Object) -> tuple[KeptLog, ...]:
    """What the containers of a training have told: it is there without their pods, too."""
    found = await job_logs.of_job(services.engine, job["metadata"]["uid"])
    return tuple(KeptLog(container=tail.container, text=tail.text, time=tail.time) for tail in found)


class JobLog(NamedTuple):
    """`text` is None where no container has written yet, `pod` where there is none any more."""

    pod: str | None
    container: str | None
    text: str | None


async def log_tail(acting: Acting, job: Object, lines: int = TAIL_LINES) -> JobLog:
    """Of the newest pod's container that runs, or that ran last. Raises problems."""
    namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
    with acting.refusals(namespace):
        pods, _ = await acting.resources.list("pods", namespace, f"{JOB_UID_LABEL}={uid}")
        if not pods:
            return JobLog(None, None, None)
        pod = max(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))
        name, container = pod["metadata"]["name"], last_started(pod)
        if container is None:
            return JobLog(name, None, None)
        try:
            return JobLog(name, container, await _read(acting, namespace, name, container, lines))
        except KubeError as error:
            if error.status != BAD_REQUEST:
                raise
            # It is being started, or its node has forgotten it.
            return JobLog(name, container, None)


def last_started(pod: Object) -> str | None:
    """The container whose log says most of how the pod fares: they start one after another."""
    status = pod.get("status", {})
    known = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    started = [each["name"] for each in known if {"running", "terminated"} & set(each.get("state", {}))]
    return started[-1] if started else None


async def _read(acting: Acting, namespace: str, pod: str, container: str, lines: int) -> str:
    """Whole lines from the end of it, as many as there is room for."""
    kept: deque[bytes] = deque()
    held = 0
    log = acting.resources.log(namespace, pod, container, tail_lines=lines)
    async with aclosing(log) as chunks:
        async for chunk in chunks:
            kept.append(chunk)
            held += len(chunk)
            while len(kept) > 1 and held - len(kept[0]) > TAIL_MAX_BYTES:
                held -= len(kept.popleft())
    return b"".join(kept)[-TAIL_MAX_BYTES:].decode(errors="replace")
