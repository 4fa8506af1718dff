"""`logs`: what the pods of a training or a batch wrote, container after container, and on to the pod that follows."""

import asyncio
import sys
from datetime import datetime
from typing import Any

from finetune_operator.cli.api_access import api_at, segment
from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import ExitCode, Failed, refused
from finetune_operator.cli.family_tree import JOB_LABEL
from finetune_operator.cli.kinds import BATCH, JOB, Kind, found, job_state, named, text
from finetune_operator.cli.options import Api, Cluster
from finetune_operator.cli.printing import hint, note
from finetune_operator.kube.errors import KubeError, NotFound, Rejected, Unavailable
from finetune_operator.kube.paths import path_of
from finetune_operator.manifests.common import BATCH_NAME_LABEL

AGAIN_SECONDS = 1.0
LABELS = {JOB.plural: JOB_LABEL, BATCH.plural: BATCH_NAME_LABEL}
"""By which pods are found whose logs are told."""
ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})

Object = dict[str, Any]


async def logs(
    cluster: Cluster,
    api: Api,
    job: str,
    *,
    follow: bool,
    container: str | None,
    tail_lines: int | None,
    everything: bool,
) -> None:
    """Of the newest pod, or of all with `everything`; with `follow` until it has ended. Of a training that
    has ended, and whose pods are gone, the last lines that the api keeps. Raises `Failed`.
    """
    kind, name = named(job)
    if (label := LABELS.get(kind.plural)) is None:
        raise refused(f"only jobs and batches have logs here: for an engine, `kubectl logs deployment/...`, not {job}")
    async with connected(cluster) as connection:
        path_of("pods", connection.namespace, name)
        body = await connection.get(kind.plural, name)
        read: set[tuple[str, str]] = set()
        pods = await _pods(connection, label, name)
        for pod in pods if everything else pods[-1:]:
            await _read_pod(connection, pod, container, read, follow=follow, tail_lines=tail_lines)
        while follow and job_state(body) not in ENDED:
            await asyncio.sleep(AGAIN_SECONDS)
            body = await connection.get(kind.plural, name)
            for pod in (await _pods(connection, label, name))[-1:]:
                await _read_pod(connection, pod, container, read, follow=True, tail_lines=None)
    why_not = None
    if kind is JOB and not read and job_state(body) in ENDED:
        why_not = await _tell_kept(cluster, api, body, container, tail_lines)
        if why_not is None and not follow:
            return
    if follow:
        hint(f"{kind.word}/{name} {job_state(body)}: {text(found(body, 'status', 'message'))}")
    elif not read:
        raise _nothing(kind, body, container, why_not)


async def _tell_kept(
    cluster: Cluster, api: Api, body: Object, container: str | None, tail_lines: int | None
) -> str | None:
    """The last lines that the api keeps; why there are none, where nothing was printed."""
    metadata = body["metadata"]
    path = f"/v1/fine-tuning/jobs/{segment(metadata['namespace'] + '.' + metadata['name'])}/logs"
    try:
        async with api_at(cluster, api) as reached:
            answer = await reached.client.ask("GET", path)
    except Failed as error:
        return f"The api keeps their last lines, but can't be asked: {error}"
    logs = [log for log in answer["logs"] if container in (None, log["container"])]
    for log in logs:
        note(f"==> container {log['container']}, whose pod is gone: its last lines, kept by the api <==")
        lines = log["text"].splitlines(keepends=True)
        _write("".join(lines if tail_lines is None else lines[max(0, len(lines) - tail_lines) :]).encode())
    return None if logs else "The api has not heard of them either."


def _nothing(kind: Kind, body: Object, container: str | None, why_not: str | None) -> Failed:
    state, name = job_state(body), body["metadata"]["name"]
    what = f"{kind.word} {name}"
    if container:
        return refused(f"no pod of {what} has a log of container {container}: leave out -c to see all there is")
    if state in ENDED:
        kept = next((each["path"] for each in found(body, "status", "artifacts") or () if each["type"] == "Log"), None)
        where = f" The trainer's log is on the volume of artifacts, {kept} in the job's directory." if kept else ""
        return refused(
            f"the pods of {what} ({state}) are gone, and their logs with them; `ftctl status {kind.word}/{name}` has "
            f"the reason.{where}{f' {why_not}' if why_not else ''}"
        )
    return refused(f"{what} ({state}) has no log yet: add -f to wait for it")


async def _pods(connection: Connection, label: str, name: str) -> list[Object]:
    """The oldest first."""
    pods = await connection.list("pods", connection.namespace, f"{label}={name}")
    return sorted(pods, key=lambda pod: (text(pod["metadata"].get("creationTimestamp")), pod["metadata"]["name"]))


async def _read_pod(
    connection: Connection,
    pod: Object,
    container: str | None,
    read: set[tuple[str, str]],
    *,
    follow: bool,
    tail_lines: int | None,
) -> None:
    """Each container that has begun, in the order in which they run."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    begun = _begun(pod)
    for each in [entry["name"] for entry in (*(spec.get("initContainers") or ()), *spec["containers"])]:
        key = (pod["metadata"]["uid"], each)
        if each in begun and key not in read and container in (None, each):
            note(f"==> pod {name}, container {each}, {_since(begun[each])} <==")
            if await _copy(connection, name, each, follow=follow, tail_lines=tail_lines):
                read.add(key)


def _begun(pod: Object) -> dict[str, str]:
    """When which container began."""
    status = found(pod, "status") or {}
    begun = {}
    for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = entry.get("state") or {}
        since = found(state, "running", "startedAt") or found(state, "terminated", "startedAt")
        if since:
            begun[entry["name"]] = since
    return begun


def _since(started_at: str) -> str:
    return f"since {datetime.fromisoformat(started_at).astimezone():%Y-%m-%d %H:%M:%S}"


async def _copy(connection: Connection, pod: str, container: str, *, follow: bool, tail_lines: int | None) -> bool:
    """To standard output, as it is. False where it could not be had yet."""
    log = connection.client.log(connection.namespace, pod, container, follow=follow, tail_lines=tail_lines)
    try:
        async for chunk in log:
            _write(chunk)
    except NotFound:
        return False
    except (Rejected, Unavailable) as error:
        if not follow or (isinstance(error, Rejected) and error.status == 403):
            with connection.explained("pods", pod):
                raise
        hint(f"the log of {container} broke off ({error}); going on")
        return isinstance(error, Unavailable)
    except KubeError as error:
        raise Failed(str(error), ExitCode.UNAVAILABLE) from None
    return True


def _write(chunk: bytes) -> None:
    """Bytes as they are, also where a test has put a text stream in place of standard output."""
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        sys.stdout.write(chunk.decode(errors="replace"))
    else:
        stream.write(chunk)
    sys.stdout.flush()
