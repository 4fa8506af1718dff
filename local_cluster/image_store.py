"""The node's image store and containers, through containerd's `ctr`; and images written without any builder."""

import hashlib
import io
import json
import platform
import subprocess
import tarfile
import time
from pathlib import Path

from local_cluster import versions
from local_cluster.console import output_of
from local_cluster.packages import find_program

NAMESPACE = "k8s.io"
_POLL_INTERVAL_SECONDS = 0.2
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ImageStore:
    """containerd's namespace that kubelet looks into."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def _argv(self, *arguments: str) -> list[str]:
        return [find_program("ctr") or "ctr", "--address", str(self._socket), "--namespace", NAMESPACE, *arguments]

    def ready(self) -> bool:
        return subprocess.run(self._argv("version"), capture_output=True, check=False).returncode == 0

    def load(self, archive: Path) -> None:
        output_of(self._argv("images", "import", str(archive)))

    def digest(self, tag: str) -> str | None:
        """The manifest digest of a local image; None unless all of it is there, ready to run."""
        argv = self._argv("images", "check", f"name=={tag}")
        checked = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        return complete_digest(checked)

    def tags(self) -> list[str]:
        names = output_of(self._argv("images", "list", "--quiet")).splitlines()
        return sorted(name for name in names if "@" not in name and not name.startswith("sha256:"))

    def remove(self, tag: str) -> None:
        output_of(self._argv("images", "remove", "--sync", tag))

    def remove_containers(self, grace_seconds: float) -> None:
        """Ends every container, kindly, then by force, and removes them with their snapshots."""
        self._signal_tasks("SIGTERM")
        deadline = time.monotonic() + grace_seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_SECONDS)
        self._signal_tasks("SIGKILL")
        deadline = time.monotonic() + grace_seconds
        while self._running() and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_SECONDS)
        for task in self._tasks():
            self._attempt("tasks", "delete", "--force", task)
        for container in output_of(self._argv("containers", "list", "--quiet")).split():
            self._attempt("containers", "delete", container)

    def _signal_tasks(self, name: str) -> None:
        for task in self._running():
            self._attempt("tasks", "kill", "--all", "--signal", name, task)

    def _attempt(self, *arguments: str) -> None:
        # A container may end between the listing and this call; whatever stays is ended by its cgroup afterwards.
        subprocess.run(self._argv(*arguments), capture_output=True, check=False)

    def _tasks(self) -> list[str]:
        return output_of(self._argv("tasks", "list", "--quiet")).split()

    def _running(self) -> list[str]:
        lines = output_of(self._argv("tasks", "list")).splitlines()[1:]
        return [line.split()[0] for line in lines if "RUNNING" in line]


def complete_digest(checked: str) -> str | None:
    """The digest in what `ctr images check` prints for one image, if its content is complete and unpacked."""
    for line in checked.splitlines()[1:]:
        words = line.split()
        if "complete" in words and words[-1] == "true":
            return next(word for word in words if word.startswith("sha256:"))
    return None


def pause_image(program: Path, archive: Path) -> Path:
    """An image of nothing but the pause program."""
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w") as output:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as content:
            output.addfile(entry, content)
    write_image(layer, archive, versions.PAUSE_IMAGE, {"Entrypoint": ["/pause"], "User": "65535"})
    layer.unlink()
    return archive


def write_image(layer: Path, archive: Path, tag: str, config: dict[str, object]) -> None:
    """Writes an OCI archive of one uncompressed layer (OCI image specification, image layout)."""
    layer_digest = _file_digest(layer)
    image = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    config_bytes = json.dumps(image).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _descriptor(_CONFIG_TYPE, config_bytes),
        "layers": [{"mediaType": _LAYER_TYPE, "digest": f"sha256:{layer_digest}", "size": layer.stat().st_size}],
    }
    manifest_bytes = json.dumps(manifest).encode()
    entry = {**_descriptor(_MANIFEST_TYPE, manifest_bytes), "annotations": {"io.containerd.image.name": tag}}
    partial = archive.with_name(f"{archive.name}.partial")
    with tarfile.open(partial, "w") as output:
        _add(output, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(output, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for content in (config_bytes, manifest_bytes):
            _add(output, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        output.add(layer, f"blobs/sha256/{layer_digest}")
    partial.replace(archive)


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "size": len(content),
    }


def _add(output: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    output.addfile(entry, io.BytesIO(content))


def _file_digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
