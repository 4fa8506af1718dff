"""The cluster's own certificate authority, one certificate per component, and their kubeconfigs.

Made by the openssl program, as the standard library can't sign; elliptic-curve keys, as they take no time to make.
"""

import base64
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from local_cluster import versions
from local_cluster.console import output_of
from local_cluster.layout import Layout

VALID_DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """A certificate's subject and the names it serves under."""

    name: str
    subject: str
    alternative_names: str = ""


USERS = (
    Identity("admin", "/O=system:masters/CN=admin"),
    Identity("kube-controller-manager", "/CN=system:kube-controller-manager"),
    Identity("kube-scheduler", "/CN=system:kube-scheduler"),
    Identity("kube-proxy", "/CN=system:kube-proxy"),
    Identity("coredns", "/CN=local-cluster:coredns"),
    Identity("volume-provisioner", "/CN=local-cluster:volume-provisioner"),
    Identity("kubelet", f"/O=system:nodes/CN=system:node:{versions.NODE_NAME}", f"IP:{versions.NODE_ADDRESS}"),
)
_SERVICE_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
APISERVER = Identity(
    "apiserver",
    "/CN=kube-apiserver",
    ",".join(
        [f"DNS:{name}" for name in (*_SERVICE_NAMES, f"kubernetes.default.svc.{versions.CLUSTER_DOMAIN}")]
        + [f"IP:{address}" for address in ("127.0.0.1", versions.API_SERVICE_ADDRESS, versions.NODE_ADDRESS)]
    ),
)
APISERVER_KUBELET_CLIENT = Identity("apiserver-kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")


def ensure_certificates(layout: Layout) -> None:
    """Makes what is missing, so that certificates outlive a restart; then writes every kubeconfig."""
    layout.certificates.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = layout.certificates / "ca.crt"
    if not authority.exists():
        _make_authority(layout.certificates)
    for identity in (APISERVER, APISERVER_KUBELET_CLIENT, *USERS):
        if not (layout.certificates / f"{identity.name}.crt").exists():
            _make_certificate(layout.certificates, identity)
    for user in USERS:
        _write_private(layout.kubeconfig_of(user.name), kubeconfig(layout, user.name))


def kubeconfig(layout: Layout, user: str) -> str:
    """A self-contained kubeconfig, in JSON, which is YAML too."""

    def encoded(name: str) -> str:
        return base64.b64encode((layout.certificates / name).read_bytes()).decode()

    cluster = {"server": layout.api_url, "certificate-authority-data": encoded("ca.crt")}
    credentials = {"client-certificate-data": encoded(f"{user}.crt"), "client-key-data": encoded(f"{user}.key")}
    context = f"local-{layout.name}"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }
    return json.dumps(content, indent=1)


def _make_authority(directory: Path) -> None:
    key = _make_key(directory / "ca.key")
    _make_key(directory / "service-accounts.key")
    partial = directory / "ca.crt.partial"
    argv = ["openssl", "req", "-x509", "-new", "-sha256", "-days", VALID_DAYS, "-subj", "/CN=local-cluster"]
    output_of([*argv, "-key", str(key), "-out", str(partial)])
    partial.replace(directory / "ca.crt")


def _make_key(path: Path) -> Path:
    output_of(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)])
    path.chmod(0o600)
    return path


def _make_certificate(directory: Path, identity: Identity) -> None:
    key = _make_key(directory / f"{identity.name}.key")
    with tempfile.TemporaryDirectory() as scratch:
        request, extensions = Path(scratch) / "request", Path(scratch) / "extensions"
        alternative = f"subjectAltName={identity.alternative_names}\n" if identity.alternative_names else ""
        extensions.write_text(f"basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth,serverAuth\n{alternative}")
        argv = ["openssl", "req", "-new", "-sha256", "-subj", identity.subject]
        output_of([*argv, "-key", str(key), "-out", str(request)])
        partial = directory / f"{identity.name}.crt.partial"
        argv = ["openssl", "x509", "-req", "-sha256", "-days", VALID_DAYS, "-CAcreateserial"]
        argv += ["-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
        output_of([*argv, "-in", str(request), "-extfile", str(extensions), "-out", str(partial)])
        partial.replace(directory / f"{identity.name}.crt")


def _write_private(path: Path, content: str) -> None:
    if path.exists() and path.read_text() == content:
        return
    partial = path.with_name(f"{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(content)
    partial.replace(path)
