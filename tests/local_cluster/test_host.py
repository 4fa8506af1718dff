"""What the host must offer is said before anything is changed."""

import shutil
import socket
from pathlib import Path

import pytest

from local_cluster import versions
from local_cluster.console import Refused
from local_cluster.host import Resources, overlapping_route, port_is_free, remove_tree, require_free_ports, shortage
from local_cluster.layout import PORTS_PER_CLUSTER, Ports

SHORTAGES = [
    ("enough of both", Resources(30, 10), None),
    ("exactly enough", Resources(25, 8), None),
    ("too little disk", Resources(24.9, 10), "set FINETUNE_CACHE to a directory on a larger disk"),
    ("too little memory", Resources(30, 7.9), "stop other programs"),
]


@pytest.mark.parametrize(("found", "remedy"), [case[1:] for case in SHORTAGES], ids=[case[0] for case in SHORTAGES])
def test_shortage_names_the_remedy(found: Resources, remedy: str | None) -> None:
    message = shortage(found, disk_needed=25, memory_needed=8)
    assert (message is None) if remedy is None else (message is not None and remedy in message)


ROUTES = [
    ("the usual two", ["default via 192.0.2.1 dev eth0", "192.0.2.0/24 dev eth0 scope link"], False),
    ("our own bridge", [f"{versions.POD_SUBNET} dev {versions.BRIDGE} proto kernel"], False),
    ("a private network around our pods", ["10.0.0.0/8 via 192.0.2.1 dev tun0"], True),
    ("a host within our services", ["10.214.3.4 dev tun0"], True),
    ("a blackhole", ["blackhole 10.213.0.0/26"], True),
]


@pytest.mark.parametrize(("routes", "overlaps"), [case[1:] for case in ROUTES], ids=[case[0] for case in ROUTES])
def test_overlapping_routes_are_found(routes: list[str], overlaps: bool) -> None:
    assert (overlapping_route(routes) is not None) is overlaps


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_a_taken_port_is_named(address: str) -> None:
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Refused, match=f"port {port} is taken"):
            require_free_ports([port])
    assert port_is_free(port)


def test_ports_of_neighbouring_clusters_do_not_touch() -> None:
    def numbers(ports: Ports) -> set[int]:
        names = [name for name, value in vars(Ports).items() if isinstance(value, property)]
        return {ports.apiserver, *(getattr(ports, name) for name in names)}

    first, second = numbers(Ports(27000)), numbers(Ports(27000 + PORTS_PER_CLUSTER))
    assert len(first) == PORTS_PER_CLUSTER
    assert not first & second


def test_an_interrupted_removal_leaves_nothing_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "image").write_text("data")

    def interrupted(path: Path) -> None:
        raise OSError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(Refused, match="run the same command again"):
            remove_tree(directory)
    assert not directory.exists()
    remove_tree(directory)
    assert list(tmp_path.iterdir()) == []
