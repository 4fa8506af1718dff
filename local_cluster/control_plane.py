"""etcd, API server, controller manager and scheduler: their arguments, their order, and when they count as ready."""

import json
import time
from pathlib import Path

from local_cluster import audit, versions
from local_cluster.api_client import ApiClient, answers
from local_cluster.console import Refused, note
from local_cluster.layout import Layout
from local_cluster.processes import Processes, Service, command

READY_TIMEOUT_SECONDS = 90.0
LOOPBACK = "127.0.0.1"
AUDIT_LOG_MEGABYTES = 500
NO_ISSUER = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []}
"""Tests of a control plane add theirs."""


class ControlPlane:
    """The processes without which there is no API; data stays in etcd's directory."""

    def __init__(self, layout: Layout, bin_dir: Path, processes: Processes) -> None:
        self._layout = layout
        self._bin_dir = bin_dir
        self._processes = processes

    def start(self) -> None:
        self.write_files()
        self._start_etcd()
        self._processes.ensure(self._apiserver())
        client = ApiClient(self._layout.kubeconfig)
        self._processes.wait_for("API server ready", client.reachable, READY_TIMEOUT_SECONDS, ("kube-apiserver",))
        self._processes.ensure(self._controller_manager())
        if not self._layout.control_plane_only:
            self._processes.ensure(self._scheduler())
        self._processes.wait_for(
            "default ServiceAccount",
            lambda: client.reachable("/api/v1/namespaces/default/serviceaccounts/default"),
            READY_TIMEOUT_SECONDS,
            ("kube-controller-manager",),
        )

    def services(self) -> list[Service]:
        always = [self._etcd(), self._apiserver(), self._controller_manager()]
        return always if self._layout.control_plane_only else [*always, self._scheduler()]

    def stop(self) -> None:
        for service in reversed(self.services()):
            self._processes.stop(service.name)

    def write_files(self) -> None:
        self._policy_file.write_text(json.dumps(audit.policy(), indent=1))
        if self._layout.control_plane_only:
            self._layout.authentication_file.write_text(json.dumps(NO_ISSUER))

    @property
    def _policy_file(self) -> Path:
        return self._layout.state / "audit-policy.json"

    @property
    def _etcd_data(self) -> Path:
        return self._layout.state / "etcd"

    @property
    def _etcd_url(self) -> str:
        return f"http://{LOOPBACK}:{self._layout.ports.etcd_client}"

    def _start_etcd(self) -> None:
        had_data = self._etcd_data.exists()
        self._processes.ensure(self._etcd())

        def ready() -> bool:
            return answers(f"{self._etcd_url}/health")

        try:
            self._processes.wait_for("etcd ready", ready, READY_TIMEOUT_SECONDS, ("etcd",))
        except Refused:
            if not had_data:
                raise
            aside = self._etcd_data.with_name(f"etcd.unusable-{int(time.time())}")
            self._processes.stop("etcd")
            self._etcd_data.rename(aside)
            log = self._processes.log("etcd")
            note(f"recovery: etcd can't use its data any more (see {log}); it is kept in {aside}, starting empty")
            self._processes.ensure(self._etcd())
            self._processes.wait_for("etcd ready", ready, READY_TIMEOUT_SECONDS, ("etcd",))

    def _etcd(self) -> Service:
        ports = self._layout.ports
        peer_url = f"http://{LOOPBACK}:{ports.etcd_peer}"
        flags = {
            "name": "local",
            "data-dir": str(self._etcd_data),
            "log-level": "warn",
            "listen-client-urls": self._etcd_url,
            "advertise-client-urls": self._etcd_url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"local={peer_url}",
        }
        if self._layout.control_plane_only:
            # A test's API server is thrown away afterwards, so it needn't survive a power cut.
            flags["unsafe-no-fsync"] = "true"
        return Service("etcd", command(self._bin_dir / "etcd", flags), ports=(ports.etcd_client, ports.etcd_peer))

    def _apiserver(self) -> Service:
        layout = self._layout

        def certificate(name: str) -> str:
            return str(layout.certificates / name)

        flags = {
            "etcd-servers": self._etcd_url,
            "bind-address": layout.address,
            "secure-port": str(layout.ports.apiserver),
            "advertise-address": versions.NODE_ADDRESS,
            # Without a node nothing reaches the Service `kubernetes`, and its address doesn't exist.
            "endpoint-reconciler-type": "none" if layout.control_plane_only else "lease",
            "client-ca-file": certificate("ca.crt"),
            "tls-cert-file": certificate("apiserver.crt"),
            "tls-private-key-file": certificate("apiserver.key"),
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": certificate("service-accounts.key"),
            "service-account-signing-key-file": certificate("service-accounts.key"),
            "kubelet-client-certificate": certificate("apiserver-kubelet-client.crt"),
            "kubelet-client-key": certificate("apiserver-kubelet-client.key"),
            "kubelet-certificate-authority": certificate("ca.crt"),
            "kubelet-preferred-address-types": "InternalIP",
            "service-cluster-ip-range": versions.SERVICE_SUBNET,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "audit-policy-file": str(self._policy_file),
            "audit-log-path": str(layout.audit_log),
            "audit-log-format": "json",
            "audit-log-maxsize": str(AUDIT_LOG_MEGABYTES),
            "audit-log-maxbackup": "2",
        }
        if layout.control_plane_only:
            flags["authentication-config"] = str(layout.authentication_file)
        return Service(
            "kube-apiserver",
            command(self._bin_dir / "kube-apiserver", flags),
            config_files=(self._policy_file, layout.certificates / "apiserver.crt"),
            ports=(layout.ports.apiserver,),
        )

    def _controller_manager(self) -> Service:
        layout = self._layout
        kubeconfig = str(layout.kubeconfig_of("kube-controller-manager"))
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": LOOPBACK,
            "secure-port": str(layout.ports.controller_manager),
            "service-account-private-key-file": str(layout.certificates / "service-accounts.key"),
            "root-ca-file": str(layout.certificates / "ca.crt"),
            "cluster-signing-cert-file": str(layout.certificates / "ca.crt"),
            "cluster-signing-key-file": str(layout.certificates / "ca.key"),
            "use-service-account-credentials": "true",
            "flex-volume-plugin-dir": str(layout.state / "volume-plugins"),
            "leader-elect": "false",
        }
        return Service(
            "kube-controller-manager",
            command(self._bin_dir / "kube-controller-manager", flags),
            ports=(layout.ports.controller_manager,),
        )

    def _scheduler(self) -> Service:
        layout = self._layout
        kubeconfig = str(layout.kubeconfig_of("kube-scheduler"))
        flags = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": LOOPBACK,
            "secure-port": str(layout.ports.scheduler),
            "leader-elect": "false",
        }
        return Service(
            "kube-scheduler",
            command(self._bin_dir / "kube-scheduler", flags),
            ports=(layout.ports.scheduler,),
        )
