"""The demo's cluster, looked at; nothing here starts one."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bench.report import NotMeasurable
from demo import target
from demo.kubectl import Kubectl
from local_cluster.cluster import Cluster
from local_cluster.console import Refused
from local_cluster.layout import cache_root

RUN_THE_DEMO = "run `make demo` first"
CONNECT_SECONDS = 1.0


def local_cluster() -> Cluster:
    """The local cluster; raises NotMeasurable where there is none."""
    if (chosen := target.choose()) != "local":
        raise NotMeasurable(f"the audit log is that of CLUSTER=local, and CLUSTER is {chosen}: set CLUSTER=local")
    try:
        return Cluster.known()
    except Refused as error:
        raise NotMeasurable(f"there is no local cluster: {RUN_THE_DEMO}") from error


def demo_kubectl() -> Kubectl:
    """kubectl for the cluster that CLUSTER chooses, as for the demo."""
    match target.choose():
        case "existing":
            return Kubectl(None, target.NAMESPACE)
        case "kind":
            return Kubectl(cache_root() / "kind.kubeconfig", target.NAMESPACE)
        case _:
            cluster = local_cluster()
            return Kubectl(cluster.kubeconfig, target.NAMESPACE, str(cluster.bin_dir / "kubectl"))


@contextmanager
def service_url(kubectl: Kubectl, service: str, port: int = 80) -> Iterator[str]:
    """Where a Service answers: itself where this machine is the node, since the way of `kubectl port-forward`, by the
    API server and kubelet, takes milliseconds and a good part of a core.
    """
    address = kubectl.get("service", service)["spec"]["clusterIP"]
    try:
        socket.create_connection((address, port), CONNECT_SECONDS).close()
    except OSError:
        with kubectl.port_forward(service, port) as url:
            yield url
    else:
        yield f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
