"""Certificates are made once, by the real openssl, and the API server's names are all in its own."""

import json
import stat
import subprocess

import pytest

from local_cluster import versions
from local_cluster.certificates import USERS, ensure_certificates
from local_cluster.layout import Layout, Ports


@pytest.fixture(params=[True, False], ids=["control plane only", "with a node"])
def layout(request: pytest.FixtureRequest) -> Layout:
    made = Layout("test", request.param, Ports(27000))
    ensure_certificates(made)
    return made


def test_every_certificate_is_signed_by_the_authority(layout: Layout) -> None:
    certificates = sorted(layout.certificates.glob("*.crt"))
    assert len(certificates) == len(USERS) + 3
    argv = ["openssl", "verify", "-CAfile", str(layout.certificates / "ca.crt"), *map(str, certificates)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("address", ["127.0.0.1", versions.NODE_ADDRESS, versions.API_SERVICE_ADDRESS])
def test_the_server_is_known_under_each_address(layout: Layout, address: str) -> None:
    argv = ["openssl", "x509", "-in", str(layout.certificates / "apiserver.crt"), "-noout", "-checkip", address]
    assert "does match" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_a_second_call_keeps_them(layout: Layout) -> None:
    before = {path: path.read_bytes() for path in layout.certificates.iterdir()}
    ensure_certificates(layout)
    assert {path: path.read_bytes() for path in layout.certificates.iterdir() if path in before} == before


def test_the_kubeconfig_points_at_the_cluster_and_is_private(layout: Layout) -> None:
    content = json.loads(layout.kubeconfig.read_text())
    host = "127.0.0.1" if layout.control_plane_only else versions.NODE_ADDRESS
    assert content["clusters"][0]["cluster"]["server"] == f"https://{host}:27000"
    assert stat.S_IMODE(layout.kubeconfig.stat().st_mode) == 0o600
