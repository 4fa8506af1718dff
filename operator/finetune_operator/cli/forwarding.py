"""A port of this machine that leads to a Service's pod, as `kubectl port-forward` makes one."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from finetune_operator.cli.connection import Connection
from finetune_operator.cli.failures import ExitCode, Failed, refused, unavailable, usage
from finetune_operator.cli.printing import note
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.kube.port_forward import PodConnection

LOOPBACK = "127.0.0.1"
SERVICE_PORT = 80
CHUNK_BYTES = 1 << 16

Object = dict[str, Any]


@asynccontextmanager
async def forwarded(connection: Connection, service: tuple[str, str], port: int = 0) -> AsyncIterator[str]:
    """A local address of the Service as long as the block lasts. Raises `Failed`."""
    forward = _Forward(connection, *service)
    await forward.tried()
    try:
        server = await asyncio.start_server(forward.accepted, LOOPBACK, port)
    except OSError as error:
        raise usage(f"port {port} of this machine can't be used: {error.strerror}") from None
    try:
        yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        # A client may keep connections of its own open for longer than this lasts.
        for carrying in forward.carrying:
            carrying.cancel()
        await asyncio.gather(*forward.carrying, return_exceptions=True)


@dataclass(frozen=True)
class _Forward:
    """Connections to whichever pod is ready when each of them begins, so that a replaced pod ends only its own."""

    connection: Connection
    namespace: str
    service: str
    carrying: "set[asyncio.Task[None]]" = field(default_factory=set)
    """One of each connection."""

    async def tried(self) -> None:
        """Whether it can be done at all. Raises `Failed`."""
        async with self._connected():
            pass

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a local client."""
        task = asyncio.create_task(self._carried(reader, writer))
        self.carrying.add(task)
        task.add_done_callback(self.carrying.discard)

    async def _carried(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side ends it; who closes one direction alone is taken as gone."""
        try:
            async with self._connected() as pod:
                both = asyncio.create_task(_sent(reader, pod)), asyncio.create_task(_received(pod, writer))
                try:
                    done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                finally:
                    for task in both:
                        task.cancel()
                    await asyncio.gather(*both, return_exceptions=True)
        except (Failed, KubeError) as error:
            note(f"a connection to {self.namespace}/{self.service} broke: {error}")
            _reset(writer)
        except OSError:
            # The local client went away first.
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[PodConnection]:
        name, port = await self._pod()
        try:
            async with self.connection.client.port_forward(self.namespace, name, port) as pod:
                yield pod
        except KubeError as error:
            if error.status in (401, 403):
                raise refused(
                    f"no port can be forwarded to {self.namespace}/{self.service}: {error} (it takes `get` and, from "
                    "Kubernetes 1.35 on, `create` on pods/portforward, which ClusterRole edit has, or --server URL)"
                ) from None
            raise unavailable(f"no port can be forwarded to {self.namespace}/{self.service}: {error}") from None

    async def _pod(self) -> tuple[str, int]:
        """Name and port of a pod that is ready. Raises `Failed`."""
        with self.connection.explained("services", self.service):
            try:
                service = await self.connection.client.get("services", self.namespace, self.service)
            except NotFound:
                context = self.connection.access.context
                raise refused(f"there is no Service {self.namespace}/{self.service} in context {context}") from None
        selector = ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items())
        if not selector:
            raise refused(f"Service {self.namespace}/{self.service} names no pods; pass --server URL")
        for pod in await self.connection.list("pods", self.namespace, selector):
            if _is_ready(pod):
                return pod["metadata"]["name"], _target_port(service, pod)
        raise unavailable(f"no pod of Service {self.namespace}/{self.service} is ready")


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def _target_port(service: Object, pod: Object) -> int:
    """What the Service's port is in the pod. Raises `Failed`."""
    for each in service["spec"].get("ports") or ():
        if each["port"] == SERVICE_PORT:
            target = each.get("targetPort", SERVICE_PORT)
            if isinstance(target, int):
                return target
            for container in pod["spec"]["containers"]:
                for known in container.get("ports") or ():
                    if known.get("name") == target:
                        return int(known["containerPort"])
    raise Failed(
        f"Service {service['metadata']['name']} has no port {SERVICE_PORT} that its pod knows", ExitCode.REFUSED
    )


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the local connection as a broken one: closed, an answer that was cut short could pass for a whole one."""
    at_once = struct.pack("ii", True, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()


async def _sent(reader: asyncio.StreamReader, pod: PodConnection) -> None:
    while content := await reader.read(CHUNK_BYTES):
        await pod.send(content)


async def _received(pod: PodConnection, writer: asyncio.StreamWriter) -> None:
    async for content in pod.received():
        writer.write(content)
        await writer.drain()
