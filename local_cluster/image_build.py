"""Builds images with BuildKit straight into the node's image store: no export, no import, no registry."""

import fcntl
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from local_cluster import host
from local_cluster.build_context import inputs_hash, local_images
from local_cluster.console import note, output_of, run_long, step
from local_cluster.host_access import proxy_arguments, write_secrets
from local_cluster.image_store import NAMESPACE, ImageStore
from local_cluster.layout import Layout
from local_cluster.processes import Processes, Service, command

READY_TIMEOUT_SECONDS = 60.0
BUILD_DISK_GIGABYTES = 4
KEPT_CACHE_MEGABYTES = 20_000
"""Trainer and server share one layer of 7 GB, which counts twice: as files and as the blob of the image."""


def build_lock(layout: Layout) -> Path:
    """Held for as long as a build runs."""
    return layout.state / ".build-lock"


class ImageBuilder:
    """BuildKit on the node's containerd, started for a build and stopped after it."""

    def __init__(self, layout: Layout, bin_dir: Path, processes: Processes) -> None:
        self._layout = layout
        self._bin_dir = bin_dir
        self._processes = processes
        self._images = ImageStore(layout.containerd_socket)

    def build(self, tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> bool:
        """Builds unless the node holds the image of the very same inputs; True if it built."""
        bases = {base: self._images.digest(base) for base in local_images(dockerfile.read_text(), arguments)}
        inputs = inputs_hash(context, dockerfile, arguments, bases)
        record = self._layout.state / "images" / f"{tag.replace('/', '_').replace(':', '@')}.json"
        if record.exists() and json.loads(record.read_text()) == [inputs, self._images.digest(tag)]:
            note(f"{tag} is up to date")
            return False
        host.require_resources(BUILD_DISK_GIGABYTES, 1)
        with step(f"Build {tag}"), self._daemon():
            run_long(self._argv(tag, dockerfile, context, arguments), tag, self._log(tag))
            self._prune()
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps([inputs, self._images.digest(tag)]))
        return True

    def _log(self, tag: str) -> Path:
        return self._layout.logs / f"build-{tag.replace('/', '_').replace(':', '@')}.log"

    @property
    def _address(self) -> str:
        return f"unix://{self._layout.runtime}/buildkitd.sock"

    def _buildctl(self, *arguments: str) -> list[str]:
        return [str(self._bin_dir / "buildctl"), "--addr", self._address, *arguments]

    def _argv(self, tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> list[str]:
        argv = self._buildctl("build", "--progress=plain", "--frontend=dockerfile.v0")
        argv += ["--local", f"context={context}", "--local", f"dockerfile={dockerfile.parent}"]
        argv += ["--opt", f"filename={dockerfile.name}", "--opt", "image-resolve-mode=local"]
        argv += ["--opt", "force-network-mode=host", "--allow", "network.host"]
        for name, value in {**proxy_arguments(), **arguments}.items():
            argv += ["--opt", f"build-arg:{name}={value}"]
        for name, path in write_secrets(self._layout.state / "build-secrets").items():
            argv += ["--secret", f"id={name},src={path}"]
        return [*argv, "--output", f"type=image,name={tag},unpack=true,compression=uncompressed"]

    @contextmanager
    def _daemon(self) -> Iterator[None]:
        """One build at a time: BuildKit's state has one writer, and two builds would only slow each other."""
        with build_lock(self._layout).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._processes.ensure(self._buildkitd())
            try:
                self._processes.wait_for("BuildKit ready", self._ready, READY_TIMEOUT_SECONDS, ("buildkitd",))
                yield
            finally:
                self._processes.stop("buildkitd")

    def _ready(self) -> bool:
        return subprocess.run(self._buildctl("debug", "workers"), capture_output=True, check=False).returncode == 0

    def _buildkitd(self) -> Service:
        flags = {
            "addr": self._address,
            "root": f"{self._layout.state}/buildkit",
            "config": "/dev/null",
            "oci-worker": "false",
            "containerd-worker": "true",
            "containerd-worker-addr": str(self._layout.containerd_socket),
            "containerd-worker-namespace": NAMESPACE,
            "containerd-worker-net": "host",
            "allow-insecure-entitlement": "network.host",
        }
        return Service("buildkitd", command(self._bin_dir / "buildkitd", flags))

    def _prune(self) -> None:
        """The image has copies of its own of what was built; the build's layers would take the same space again."""
        output_of(self._buildctl("prune", "--keep-storage", str(KEPT_CACHE_MEGABYTES)))
