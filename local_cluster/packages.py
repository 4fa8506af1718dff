"""The Debian packages that the node needs: says what is missing, installs it as root, remembers what it installed."""

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from local_cluster.console import Refused, note, output_of, run_long, step
from local_cluster.layout import cache_root

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("bridge", "host-local", "loopback")


@dataclass(frozen=True)
class Package:
    """A package, and the files that prove its work is done already, whoever installed them."""

    name: str
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def present(self) -> bool:
        return all(find_program(name) for name in self.programs) and all(Path(path).exists() for path in self.files)


CONTROL_PLANE_PACKAGES = (
    Package("openssl", ("openssl",)),
    Package("ca-certificates", (), ("/etc/ssl/certs/ca-certificates.crt",)),  # Go fetches modules over TLS
)
NODE_PACKAGES = (
    *CONTROL_PLANE_PACKAGES,
    Package("containerd", ("containerd", "ctr", "containerd-shim-runc-v2")),
    Package("runc", ("runc",)),
    Package("iptables", ("iptables", "iptables-save")),
    Package("conntrack", ("conntrack",)),
    Package("iproute2", ("ip",)),
    Package("mmdebstrap", ("mmdebstrap",)),
    Package("debian-archive-keyring", (), ("/usr/share/keyrings/debian-archive-keyring.gpg",)),
)


def find_program(name: str) -> str | None:
    """A program's path; the system's directories count even where root's PATH leaves them out."""
    return shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_DIRECTORIES))


def cni_directory() -> Path | None:
    """Where the network plugins lie: Debian's place or the upstream one."""
    complete = (path for path in CNI_DIRECTORIES if all((path / plugin).exists() for plugin in _CNI_PLUGINS))
    return next(complete, None)


def missing(packages: tuple[Package, ...] = NODE_PACKAGES) -> list[str]:
    names = [package.name for package in packages if not package.present()]
    if packages is NODE_PACKAGES and cni_directory() is None:
        names.append("containernetworking-plugins")
    return names


def install(packages: tuple[Package, ...] = NODE_PACKAGES) -> None:
    """Installs what is missing; Refused, with the command to run, where that needs another user or system."""
    if not missing(packages):
        return
    lock_file = cache_root() / "packages.lock"
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have installed them while this one waited.
        if names := missing(packages):
            _install(names)
    if still := missing(packages):
        raise Refused(f"installed, and yet not found: {' '.join(still)}")


def _install(names: list[str]) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "--no-remove", "--no-upgrade", *names]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Refused(f"missing system packages: {' '.join(names)}. As root on Debian or Ubuntu: {' '.join(command)}")
    with step(f"Install system packages: {' '.join(names)} (with what they depend on)"):
        before = _installed()
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        logs = cache_root() / "logs"
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
            run_long(["apt-get", "update"], "apt-get update", logs / "apt-update.log", environment=environment)
        try:
            run_long(command, "apt-get install", logs / "apt-install.log", environment=environment)
        except Refused:
            note("the package lists may be out of date: updating them and trying once more")
            run_long(["apt-get", "update"], "apt-get update", logs / "apt-update.log", environment=environment)
            run_long(command, "apt-get install", logs / "apt-install.log", environment=environment)
        new = sorted(_installed() - before)
        _remember(new)
        note(f"newly installed: {' '.join(new)}")


def remove_installed() -> None:
    """Removes exactly the packages that `install` newly installed; refuses where something else needs one of them."""
    record = _record()
    if not record.exists():
        return
    names = sorted(set(json.loads(record.read_text())) & _installed())
    if names:
        with step(f"Remove the system packages that were installed for the cluster: {' '.join(names)}"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            log = cache_root() / "logs" / "dpkg-purge.log"
            run_long(["dpkg", "--purge", *names], "dpkg --purge", log, environment=environment)
    record.unlink()


def _record() -> Path:
    return cache_root() / "installed-packages.json"


def _remember(new: list[str]) -> None:
    record = _record()
    known = json.loads(record.read_text()) if record.exists() else []
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(sorted({*known, *new})))


def _installed() -> set[str]:
    listing = output_of(["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package}\n"])
    return {line.split()[1] for line in listing.splitlines() if line.startswith("ii")}
