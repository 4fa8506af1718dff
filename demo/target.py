"""Where the demo runs: your cluster, a kind cluster, or a single node built from source on this machine."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from demo.console import Narrator
from demo.kubectl import DemoError, Kubectl
from local_cluster import packages
from local_cluster.cluster import Cluster
from local_cluster.console import run_long
from local_cluster.layout import cache_root
from local_cluster.versions import BASE_IMAGE, NODE_ADDRESS

REPOSITORY = Path(__file__).resolve().parent.parent
# Not the namespace that the README installs to: the demo deletes what it finds in its own.
NAMESPACE = "finetune-demo"
KIND_NAME = "finetune"
LOCAL_PREFIX = "localhost/finetune-operator"
DOCKERFILES: Mapping[str, Path] = {
    "operator": REPOSITORY / "Dockerfile.operator",
    "trainer": REPOSITORY / "trainer_image" / "Dockerfile",
    "server": REPOSITORY / "server_image" / "Dockerfile",
}
# On one node alone: elsewhere the api would keep the volume from the pods of trainings on other nodes.
RATINGS: Mapping[str, str] = {"api.ratings.claimName": "ratings"}


@dataclass(frozen=True)
class Target:
    """A cluster that is up and has the images."""

    name: str
    kubectl: Kubectl
    values: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    audit_log: Path | None = None


def choose() -> str:
    """CLUSTER=existing|kind|local; unset, kind where a Docker engine answers, else local."""
    chosen = os.environ.get("CLUSTER", "")
    if chosen in ("existing", "kind", "local"):
        return chosen
    if chosen:
        raise DemoError(f"CLUSTER={chosen}: choose existing, kind or local")
    if (remembered := _memory()).exists():
        return remembered.read_text()
    return "kind" if shutil.which("kind") and _docker_answers() else "local"


def bring_up(name: str, narrator: Narrator) -> Target:
    """The cluster with the images in it; idempotent and quick where it is up already. `down` finds it again."""
    _without_proxy()
    _memory().parent.mkdir(parents=True, exist_ok=True)
    _memory().write_text(name)
    return {"existing": _existing, "kind": _kind, "local": _local}[name](narrator)


def take_down(name: str, narrator: Narrator) -> None:
    """Undo: the release, the cluster and every change to the host."""
    match name:
        case "existing":
            kubectl = Kubectl(None, NAMESPACE)
            narrator.say(kubectl.helm("uninstall", "finetune", "--ignore-not-found", "--wait"))
            narrator.say(kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found"))
        case "kind":
            subprocess.run(["kind", "delete", "cluster", "--name", KIND_NAME], check=True)
        case _:
            Cluster().down(purge=os.environ.get("PURGE") == "1")
            packages.remove_installed()
    _memory().unlink(missing_ok=True)


def _memory() -> Path:
    """Which cluster the demo went to, so that `down` undoes that one."""
    return cache_root() / "demo-target"


def _without_proxy() -> None:
    """Port-forwards and the local node are on this machine, where a proxy can't reach them."""
    for name in ("NO_PROXY", "no_proxy"):
        known = os.environ.get(name, "")
        os.environ[name] = ",".join(filter(None, (known, "127.0.0.1", "localhost", NODE_ADDRESS)))


def _local(narrator: Narrator) -> Target:
    narrator.say(f"a single-node Kubernetes built from source; everything is cached in {cache_root()}")
    cluster = Cluster()
    cluster.up()
    cluster.ensure_base_image()
    for name, dockerfile in DOCKERFILES.items():
        cluster.build_image(f"{LOCAL_PREFIX}/{name}:dev", dockerfile, REPOSITORY, {"BASE_IMAGE": BASE_IMAGE})
    kubectl = Kubectl(cluster.kubeconfig, NAMESPACE, str(cluster.bin_dir / "kubectl"), str(cluster.bin_dir / "helm"))
    settings = _rolled_by(cluster.node.images.digest(f"{LOCAL_PREFIX}/operator:dev"))
    return Target("local", kubectl, ("values-cpu.yaml",), {**settings, **RATINGS}, cluster.audit_log)


def _kind(narrator: Narrator) -> Target:
    _require("docker", "kind", "kubectl", "helm")
    kubeconfig = cache_root() / "kind.kubeconfig"
    logs = cache_root() / "logs"
    clusters = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    if KIND_NAME not in clusters:
        create = ["kind", "create", "cluster", "--name", KIND_NAME, "--kubeconfig", str(kubeconfig)]
        run_long(create, "kind create cluster", logs / "kind.log")
    run_long(
        ["kind", "export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig", str(kubeconfig)],
        "kind export kubeconfig",
        logs / "kind-kubeconfig.log",
    )
    for name, dockerfile in DOCKERFILES.items():
        tag = f"{LOCAL_PREFIX}/{name}:dev"
        build = ["docker", "build", "--file", str(dockerfile), "--tag", tag, str(REPOSITORY)]
        run_long(build, f"docker build {tag}", logs / f"docker-{name}.log")
        load = ["kind", "load", "docker-image", tag, "--name", KIND_NAME]
        run_long(load, f"kind load {tag}", logs / f"kind-load-{name}.log")
    narrator.say(f"KUBECONFIG={kubeconfig}")
    inspect = ["docker", "image", "inspect", "--format", "{{.Id}}", f"{LOCAL_PREFIX}/operator:dev"]
    digest = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    settings = {**_rolled_by(digest), **RATINGS}
    return Target("kind", Kubectl(kubeconfig, NAMESPACE), ("values-cpu.yaml",), settings)


def _existing(narrator: Narrator) -> Target:
    _require("kubectl", "helm")
    prefix, tag = os.environ.get("IMAGES", ""), os.environ.get("TAG", "dev")
    if not prefix:
        raise DemoError(
            "CLUSTER=existing needs IMAGES=<registry>/<path>, below which operator, trainer and server can be pulled "
            "(and TAG where it isn't dev): build them with the three Dockerfiles and push them there"
        )
    settings: dict[str, str] = {}
    for name in DOCKERFILES:
        settings |= {f"image.{name}.repository": f"{prefix}/{name}", f"image.{name}.tag": tag}
    narrator.say("using the cluster of your KUBECONFIG")
    return Target("existing", Kubectl(None, NAMESPACE), ("values-cpu.yaml",), settings)


def _rolled_by(digest: str | None) -> dict[str, str]:
    """Chart values by which a new image under the same tag replaces the running pods."""
    key = "podAnnotations.finetune\\.dev/image"
    return {f"{process}.{key}": str(digest) for process in ("operator", "gateway", "api")}


def _require(*programs: str) -> None:
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        raise DemoError(f"not found on PATH: {', '.join(missing)}")


def _docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
