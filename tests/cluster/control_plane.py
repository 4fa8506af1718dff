"""The session's API server with our CRDs, and access to it as administrator and as the operator."""

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import yaml

from finetune_operator.kube.client import KubeClient
from local_cluster.cluster import Cluster
from local_cluster.layout import cache_root

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "finetune-operator"
CLUSTER_NAME = "test"
RELEASE_NAMESPACE = "finetune-system"
RELEASE_NAME = "finetune"
NAMESPACE_IN_CHART = "watched-namespace"
OPERATOR_USER = f"system:serviceaccount:{RELEASE_NAMESPACE}:{RELEASE_NAME}-operator"
ROLE_KINDS = ("Role", "RoleBinding", "ServiceAccount")

Manifest = dict[str, Any]


class CommandFailed(Exception):
    """A command line ended with an error; the message is what it wrote."""


@dataclass(frozen=True)
class ControlPlane:
    """A real API server, etcd and controller manager; pods are admitted and never run."""

    cluster: Cluster
    client: KubeClient
    directory: Path

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Output of the pinned kubectl as administrator."""
        return await _run(str(self.cluster.bin_dir / "kubectl"), *self._access, *arguments, stdin=stdin)

    async def apply(self, *manifests: Manifest) -> None:
        """Any kinds at once."""
        bodies = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        await self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(bodies))

    async def rendered_chart(self) -> list[Manifest]:
        """What the Helm chart would install for one watched namespace."""
        arguments = ("template", RELEASE_NAME, str(CHART), "--namespace", RELEASE_NAMESPACE)
        values = ("--set", f"watchNamespaces={{{NAMESPACE_IN_CHART}}}")
        text = await _run(str(self.cluster.bin_dir / "helm"), *arguments, *values)
        return [body for body in yaml.safe_load_all(text) if body]

    async def operator_kubeconfig(self, server: str | None = None) -> Path:
        """Access with the rights of the chart's ServiceAccount; `server` is a proxy before the API server."""
        account = OPERATOR_USER.rsplit(":", 1)[1]
        token = await self.kubectl("create", "token", account, "-n", RELEASE_NAMESPACE, "--duration", "8h")
        config = json.loads(self.cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token.strip()}
        if server:
            config["clusters"][0]["cluster"] = {"server": server}
        path = self.directory / f"operator-{abs(hash(server))}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    @property
    def _access(self) -> tuple[str, ...]:
        return "--kubeconfig", str(self.cluster.kubeconfig)


@asynccontextmanager
async def running_control_plane(directory: Path) -> AsyncIterator[ControlPlane]:
    """From an empty etcd with our CRDs to nothing left, whatever an earlier session left behind."""
    with _alone():
        cluster = Cluster(CLUSTER_NAME, control_plane_only=True)
        await asyncio.to_thread(cluster.down, purge=True)
        cluster = Cluster(CLUSTER_NAME, control_plane_only=True)
        try:
            await asyncio.to_thread(cluster.up)
            async with admin_client(cluster.kubeconfig) as client:
                plane = ControlPlane(cluster, client, directory)
                await plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
                await plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
                yield plane
        finally:
            await asyncio.to_thread(cluster.down, purge=True)


@asynccontextmanager
async def admin_client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """The project's own client with a kubeconfig's certificate."""
    config = json.loads(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    credentials = kopf.ConnectionInfo(
        server=cluster["server"],
        ca_data=cluster["certificate-authority-data"],
        certificate_data=user["client-certificate-data"],
        private_key_data=user["client-key-data"],
    )
    connector = aiohttp.TCPConnector(ssl=credentials.as_ssl_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        yield KubeClient(session, credentials)


@contextmanager
def _alone() -> Iterator[None]:
    """One session at a time: they would share the cluster's name and the engines' addresses."""
    path = cache_root() / "cluster-tests.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandFailed(f"another run of the cluster tests holds {path}: wait for it to end") from error
        yield


async def _run(*argv: str, stdin: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ})
    output, errors = await process.communicate(stdin.encode())
    if process.returncode:
        raise CommandFailed(f"{' '.join(argv)}: {errors.decode().strip()}")
    return output.decode()
