"""The session's API server with our CRDs, and access to it as administrator and as the operator."""

import asyncio
import base64
import fcntl
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import yaml

from finetune_operator.kube.client import KubeClient
from local_cluster import versions
from local_cluster.cluster import Cluster
from local_cluster.control_plane import NO_ISSUER
from local_cluster.layout import cache_root
from tests.cluster.audit import AuditLog

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm" / "finetune-operator"
CLUSTER_NAME = "test"
RELEASE_NAMESPACE = "finetune-system"
RELEASE_NAME = "finetune"
NAMESPACE_IN_CHART = "watched-namespace"
OPERATOR_ACCOUNT = f"{RELEASE_NAME}-operator"
OPERATOR_USER = f"system:serviceaccount:{RELEASE_NAMESPACE}:{OPERATOR_ACCOUNT}"
KEY_ACCOUNT = "robot"
"""The ServiceAccount that API keys may stand for."""
RIGHTS = ("Role", "RoleBinding", "ServiceAccount", "ClusterRole")
TOKEN_DURATION = "8h"  # noqa: S105 - a duration

Manifest = dict[str, Any]


class CommandFailed(Exception):
    """A command line ended with an error; the message is what it wrote."""


class ControlPlane:
    """A real API server, etcd and controller manager; pods are admitted and never run."""

    def __init__(self, cluster: Cluster, client: KubeClient, directory: Path) -> None:
        self.client = client
        self.directory = directory
        self.audit = AuditLog(cluster.audit_log, OPERATOR_USER)
        self._bin_dir = cluster.bin_dir
        self._authentication_file = cluster.authentication_file
        self._admin = json.loads(cluster.kubeconfig.read_text())
        self._access = ("--kubeconfig", str(cluster.kubeconfig))
        self._chart: list[Manifest] = []
        self._token = ""

    @property
    def server(self) -> str:
        url: str = self._admin["clusters"][0]["cluster"]["server"]
        return url

    @property
    def server_trust(self) -> ssl.SSLContext:
        """Trusts the API server's certificate, and shows none of its own."""
        return ssl.create_default_context(cadata=base64.b64decode(self.authority).decode())

    @property
    def authority(self) -> str:
        """The certificate of whoever signed the API server's, in base64."""
        data: str = self._admin["clusters"][0]["cluster"]["certificate-authority-data"]
        return data

    async def install(self) -> None:
        """The CRDs, and the operator's ServiceAccount from the chart."""
        await self.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        await self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        arguments = ("template", RELEASE_NAME, str(CHART), "--namespace", RELEASE_NAMESPACE)
        robot = (
            f"api.keys.serviceAccounts[0].namespace={NAMESPACE_IN_CHART},api.keys.serviceAccounts[0].name={KEY_ACCOUNT}"
        )
        settings = ("--set", f"watchNamespaces={{{NAMESPACE_IN_CHART}}}", "--set", robot)
        values = ("--kube-version", versions.KUBERNETES, *settings)
        text = await _run(str(self._bin_dir / "helm"), *arguments, *values)
        self._chart = [body for body in yaml.safe_load_all(text) if body and body["kind"] in RIGHTS]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE_NAMESPACE}}
        await self.apply(namespace, *(body for body in self._chart if _namespace_of(body) in (RELEASE_NAMESPACE, None)))
        token = ("create", "token", OPERATOR_ACCOUNT, "-n", RELEASE_NAMESPACE, "--duration", TOKEN_DURATION)
        self._token = (await self.kubectl(*token)).strip()

    def trust_issuer(self, url: str, authority: str, client_id: str, prefix: str) -> None:
        """Have the API server take tokens of an issuer, soon; without one, of none any more."""
        issuer = {"url": url, "certificateAuthority": authority, "audiences": [client_id]}
        mapping = {"username": {"claim": "email", "prefix": prefix}}
        jwt = [{"issuer": issuer, "claimMappings": mapping}] if url else []
        self._authentication_file.write_text(json.dumps(NO_ISSUER | {"jwt": jwt}))

    def rights_in(self, namespace: str) -> list[Manifest]:
        """What the chart would install of Roles and ServiceAccounts in a watched namespace."""
        watched = [body for body in self._chart if _namespace_of(body) == NAMESPACE_IN_CHART]
        text = json.dumps(watched).replace(f'"{NAMESPACE_IN_CHART}"', json.dumps(namespace))
        bodies: list[Manifest] = json.loads(text)
        return bodies

    def operator_rules(self) -> list[Manifest]:
        """The rules of the operator's Role."""
        roles = [body for body in self._chart if body["kind"] == "Role"]
        rules: list[Manifest] = next(role["rules"] for role in roles if role["metadata"]["name"] == OPERATOR_ACCOUNT)
        return rules

    def operator_kubeconfig(self, server: str | None = None) -> Path:
        """Access with the rights of the chart's ServiceAccount; `server` is a proxy before the API server."""
        name = f"operator-{server.rsplit(':', 1)[1] if server else 'direct'}"
        return self._kubeconfig(name, self._token, server)

    async def account_kubeconfig(self, namespace: str, account: str) -> Path:
        """Access with the rights of another ServiceAccount of the chart."""
        token = await self.kubectl("create", "token", account, "-n", namespace, "--duration", TOKEN_DURATION)
        return self._kubeconfig(f"{namespace}-{account}", token.strip())

    def _kubeconfig(self, name: str, token: str, server: str | None = None) -> Path:
        cluster = {"server": server} if server else self._admin["clusters"][0]["cluster"]
        config = self._admin | {
            "clusters": [self._admin["clusters"][0] | {"cluster": cluster}],
            "users": [self._admin["users"][0] | {"user": {"token": token}}],
        }
        path = self.directory / f"{name}.kubeconfig"
        if not path.exists():  # Operators that run read theirs again, now and then.
            path.write_text(json.dumps(config))
        return path

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Output of the pinned kubectl as administrator."""
        return await _run(str(self._bin_dir / "kubectl"), *self._access, *arguments, stdin=stdin)

    async def apply(self, *manifests: Manifest) -> None:
        """Any kinds at once."""
        bodies = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        await self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(bodies))


@asynccontextmanager
async def running_control_plane(directory: Path) -> AsyncIterator[ControlPlane]:
    """From an empty etcd with our CRDs to nothing left, whatever an earlier session left behind."""
    with _alone():
        await asyncio.to_thread(_cluster().down, purge=True)
        cluster = _cluster()
        try:
            await asyncio.to_thread(cluster.up)
            credentials = _credentials(cluster.kubeconfig)
            connector = aiohttp.TCPConnector(ssl=credentials.as_ssl_context())
            async with aiohttp.ClientSession(connector=connector) as session:
                plane = ControlPlane(cluster, KubeClient(session, credentials), directory)
                await plane.install()
                yield plane
        finally:
            await asyncio.to_thread(cluster.down, purge=True)


def _cluster() -> Cluster:
    return Cluster(CLUSTER_NAME, control_plane_only=True)


def _namespace_of(body: Manifest) -> str | None:
    """None for ClusterRoles, which are aggregated into `view` and `edit`."""
    namespace: str | None = body["metadata"].get("namespace")
    return namespace


def _credentials(kubeconfig: Path) -> kopf.ConnectionInfo:
    """The administrator's certificate."""
    config = json.loads(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    return kopf.ConnectionInfo(
        server=cluster["server"],
        ca_data=cluster["certificate-authority-data"],
        certificate_data=user["client-certificate-data"],
        private_key_data=user["client-key-data"],
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One session at a time, each waits for its turn: they would share the cluster's name and servers' addresses."""
    path = cache_root() / "cluster-tests.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def _run(*argv: str, stdin: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate(stdin.encode())
    if process.returncode:
        raise CommandFailed(f"{' '.join(argv)}: {errors.decode().strip()}")
    return output.decode()
