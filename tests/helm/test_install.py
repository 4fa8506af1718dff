"""The chart in a real API server: what rendering can't show. No node is needed, hence no pod starts."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_cluster import toolchain
from local_cluster.cluster import Cluster
from tests.helm.conftest import CHART, NAMESPACE, REPOSITORY, Manifest
from tests.waiting import eventually

WATCHED = "team-a"
NAMESPACES = (NAMESPACE, WATCHED)
ENFORCED = "pod-security.kubernetes.io/enforce=restricted"
VALUES = ("--namespace", NAMESPACE, "--set", f"watchNamespaces={{{','.join(NAMESPACES)}}}")


class Session:
    """Helm and kubectl for one cluster."""

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(cache)}

    def run(self, program: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        argv = [str(toolchain.bin_dir() / program), *arguments]
        return subprocess.run(
            argv, input=given, capture_output=True, text=True, check=False, timeout=120, env=self._environment
        )

    def do(self, program: str, *arguments: str, given: str | None = None) -> str:
        done = self.run(program, *arguments, given=given)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.do("kubectl", "get", *arguments, "--output", "json"))

    def may(self, account: str, verb: str, resource: str, namespace: str) -> bool:
        name, _, subresource = resource.partition("/")
        user = f"system:serviceaccount:{NAMESPACE}:{account}"
        argv = ("auth", "can-i", verb, name, f"--subresource={subresource}", "--namespace", namespace, "--as", user)
        return self.run("kubectl", *argv).stdout.strip() == "yes"

    def secret(self, namespace: str) -> dict[str, str]:
        return dict(self.get("secret", "finetune-internal", "--namespace", namespace)["data"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The release in an API server of its own, which no other test shares."""
    cluster = Cluster("chart-tests", control_plane_only=True)
    cluster.down(purge=True)
    cluster.up()
    session = Session(cluster.kubeconfig, tmp_path_factory.mktemp("kubectl"))
    for namespace in NAMESPACES:
        session.do("kubectl", "create", "namespace", namespace)
        session.do("kubectl", "label", "namespace", namespace, ENFORCED)
    session.do("helm", "install", "finetune", str(CHART), *VALUES)
    session.do("kubectl", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    yield session
    cluster.down(purge=True)


async def test_definitions_are_established(installed: Session) -> None:
    names = ("finetunejobs", "modelversions", "abtests", "batchinferences")
    for name in names:
        installed.do("kubectl", "wait", "--for=condition=Established", f"crd/{name}.finetune.dev", "--timeout=30s")

    def are_discovered() -> bool:
        found = installed.do("kubectl", "api-resources", "--categories=finetuning", "--output=name").split()
        assert sorted(found) == sorted(f"{name}.finetune.dev" for name in names)
        return True

    await eventually(are_discovered)


def test_secrets_survive_upgrades_and_reinstallation(installed: Session) -> None:
    before = {namespace: installed.secret(namespace) for namespace in NAMESPACES}
    installed.do("helm", "upgrade", "finetune", str(CHART), *VALUES, "--set", "logLevel=DEBUG")
    assert {namespace: installed.secret(namespace) for namespace in NAMESPACES} == before

    installed.do("helm", "uninstall", "finetune", "--namespace", NAMESPACE)
    assert not installed.get("deployments", "--namespace", NAMESPACE)["items"]
    assert len(installed.get("crds")["items"]) == 4
    claims = installed.get("pvc", "--namespace", WATCHED)["items"]
    assert {claim["metadata"]["name"] for claim in claims} == {"artifacts", "models"}

    installed.do("helm", "install", "finetune", str(CHART), *VALUES)
    assert {namespace: installed.secret(namespace) for namespace in NAMESPACES} == before


@pytest.mark.parametrize("component", ["operator", "gateway", "api"])
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_nobody_may_touch_secrets(installed: Session, component: str, namespace: str) -> None:
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete"):
        assert not installed.may(f"finetune-{component}", verb, "secrets", namespace), verb


@pytest.mark.parametrize(
    ("component", "verb", "resource", "namespace", "allowed"),
    [
        ("operator", "watch", "finetunejobs.finetune.dev", WATCHED, True),
        ("operator", "patch", "modelversions.finetune.dev/status", WATCHED, True),
        ("operator", "create", "jobs.batch", WATCHED, True),
        ("operator", "watch", "finetunejobs.finetune.dev", "default", False),
        ("operator", "patch", "finetunejobs.finetune.dev", WATCHED, False),
        ("operator", "create", "pods", WATCHED, False),
        ("gateway", "watch", "modelversions.finetune.dev", WATCHED, True),
        ("gateway", "list", "finetunejobs.finetune.dev", WATCHED, False),
        ("api", "patch", "abtests.finetune.dev/status", WATCHED, False),
    ],
)
def test_rights(installed: Session, component: str, verb: str, resource: str, namespace: str, *, allowed: bool) -> None:
    assert installed.may(f"finetune-{component}", verb, resource, namespace) is allowed


def pods(session: Session) -> Iterator[Manifest]:
    """The pods that the release's Deployments would make, and its test pod."""
    for deployment in session.get("deployments", "--namespace", NAMESPACE)["items"]:
        template = deployment["spec"]["template"]
        metadata = {"name": deployment["metadata"]["name"], "labels": template["metadata"]["labels"]}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    yield from yaml.safe_load_all(session.do("helm", "get", "hooks", "finetune", "--namespace", NAMESPACE))


def test_api_server_admits_the_pods_as_restricted(installed: Session) -> None:
    """Pod Security's own admission; a pod that breaks the rule shows that it is enforced."""
    arguments = ("create", "--namespace", NAMESPACE, "--dry-run=server", "--output=name", "--filename=-")
    admitted = [installed.do("kubectl", *arguments, given=json.dumps(pod)).strip() for pod in pods(installed)]
    assert len(admitted) == 4
    pod = next(pods(installed))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = installed.run("kubectl", *arguments, given=json.dumps(pod))
    assert 'violates PodSecurity "restricted' in refused.stderr


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "examples").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_api_server_accepts_the_examples(installed: Session, path: Path) -> None:
    arguments = ("apply", "--namespace", WATCHED, "--dry-run=server", "--validate=strict", "--filename", str(path))
    assert "Warning" not in installed.run("kubectl", *arguments).stderr
    installed.do("kubectl", *arguments)
