"""Services and names inside the cluster: kube-proxy and CoreDNS, both as plain processes of the node."""

import subprocess
from pathlib import Path

from local_cluster import versions
from local_cluster.api_client import ApiClient, Json, answers, grant
from local_cluster.console import note
from local_cluster.layout import Layout
from local_cluster.packages import SYSTEM_DIRECTORIES, find_program
from local_cluster.processes import Processes, Service, command

READY_TIMEOUT_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
DNS_SERVICE = "/api/v1/namespaces/kube-system/services/kube-dns"
DNS_ENDPOINTS = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-local"
FIREWALL_CHAIN = "KUBE-FIREWALL"
DNS_RULES = [
    {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
# kube-proxy calls iptables and conntrack by name; root's PATH may leave the system's directories out.
ENVIRONMENT = {"PATH": ":".join(SYSTEM_DIRECTORIES)}


class Network:
    """kube-proxy in iptables mode and CoreDNS on the node's address, behind the Service kube-dns."""

    def __init__(self, layout: Layout, bin_dir: Path, processes: Processes) -> None:
        self._layout = layout
        self._bin_dir = bin_dir
        self._processes = processes

    def start(self) -> None:
        client = ApiClient(self._layout.kubeconfig)
        grant(client, "local-cluster:kube-proxy", "system:kube-proxy", role="system:node-proxier")
        grant(client, "local-cluster:coredns", "local-cluster:coredns", rules=DNS_RULES)
        client.apply(DNS_SERVICE, _dns_service(self._layout.ports.dns))
        client.apply(DNS_ENDPOINTS, _dns_endpoints(self._layout.ports.dns))
        self.write_files()
        for service in self.services():
            self._processes.ensure(service)
        self._wait_for_health("kube-proxy", f"http://{LOOPBACK}:{self._layout.ports.proxy_health}/healthz")
        self._wait_for_health("coredns", f"http://{LOOPBACK}:{self._layout.ports.dns_health}/ready")

    def write_files(self) -> None:
        self._corefile.write_text(self._corefile_content())

    def _wait_for_health(self, name: str, url: str) -> None:
        self._processes.wait_for(f"{name} ready", lambda: answers(url), READY_TIMEOUT_SECONDS, (name,))

    def services(self) -> list[Service]:
        return [self._kube_proxy(), self._coredns()]

    def stop(self) -> None:
        """Stops both and removes kube-proxy's iptables chains."""
        for name in ("coredns", "kube-proxy"):
            self._processes.stop(name)
        program = self._bin_dir / "kube-proxy"
        if program.exists():
            note("host: removing kube-proxy's iptables chains")
            subprocess.run([str(program), "--cleanup"], capture_output=True, env=ENVIRONMENT, check=False)
            for iptables in ("iptables", "ip6tables"):
                _remove_firewall_chain(iptables)

    def _kube_proxy(self) -> Service:
        ports = self._layout.ports
        flags = {
            "kubeconfig": str(self._layout.kubeconfig_of("kube-proxy")),
            "proxy-mode": "iptables",
            "cluster-cidr": versions.POD_SUBNET,
            "hostname-override": versions.NODE_NAME,
            "healthz-bind-address": f"{LOOPBACK}:{ports.proxy_health}",
            "metrics-bind-address": f"{LOOPBACK}:{ports.proxy_metrics}",
            # Each of these leaves a kernel setting of the host as it is.
            "iptables-localhost-nodeports": "false",
            "conntrack-max-per-core": "0",
            "conntrack-tcp-timeout-established": "0s",
            "conntrack-tcp-timeout-close-wait": "0s",
        }
        return Service(
            "kube-proxy",
            command(self._bin_dir / "kube-proxy", flags),
            environment=ENVIRONMENT,
            ports=(ports.proxy_health, ports.proxy_metrics),
        )

    def _coredns(self) -> Service:
        ports = self._layout.ports
        return Service(
            "coredns",
            (str(self._bin_dir / "coredns"), "-conf", str(self._corefile)),
            config_files=(self._corefile,),
            ports=(ports.dns, ports.dns_health),
        )

    @property
    def _corefile(self) -> Path:
        return self._layout.state / "Corefile"

    def _corefile_content(self) -> str:
        ports = self._layout.ports
        return f""".:{ports.dns} {{
  bind {versions.NODE_ADDRESS}
  errors
  ready {LOOPBACK}:{ports.dns_health}
  kubernetes {versions.CLUSTER_DOMAIN} in-addr.arpa {{
    kubeconfig {self._layout.kubeconfig_of("coredns")}
    fallthrough in-addr.arpa
  }}
  forward . /etc/resolv.conf
  cache 5
}}
"""


def _remove_firewall_chain(iptables: str) -> None:
    """kube-proxy's own clean-up leaves this one behind, since kubelets used to own it."""

    def run(*arguments: str) -> bool:
        argv = [find_program(iptables) or iptables, "-w", *arguments]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    for hook in ("INPUT", "OUTPUT"):
        while run("-D", hook, "-j", FIREWALL_CHAIN):
            pass
    if run("-F", FIREWALL_CHAIN):
        run("-X", FIREWALL_CHAIN)


def _dns_service(port: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "clusterIP": versions.DNS_SERVICE_ADDRESS,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": port},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": port},
            ],
        },
    }


def _dns_endpoints(port: int) -> Json:
    """Without a selector nobody else writes the endpoints of the Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-local",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "dns", "port": port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": port, "protocol": "TCP"},
        ],
        "endpoints": [{"addresses": [versions.NODE_ADDRESS], "conditions": {"ready": True}}],
    }
