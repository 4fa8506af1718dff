"""The Debian base image of the local profile, made from packages on the spot, as there is no registry to pull from."""

import hashlib
from pathlib import Path

from local_cluster import versions
from local_cluster.console import note, run_long, step
from local_cluster.image_store import ImageStore, write_image
from local_cluster.layout import cache_root
from local_cluster.packages import find_program

PACKAGES = (
    "python3",
    "python3-venv",
    "ca-certificates",
    "libnuma1",  # vLLM's CPU kernels
    "gcc",  # Triton and torch.compile build kernels at run time, against Python's headers
    "g++",
    "python3-dev",
)
CONFIG: dict[str, object] = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["/bin/bash"],
}


def ensure_base_image(images: ImageStore) -> None:
    """Imports the base image unless the node has exactly this one."""
    archive = base_image_archive()
    marker = archive.with_suffix(".imported")
    if marker.exists() and marker.read_text() == images.digest(versions.BASE_IMAGE):
        note(f"{versions.BASE_IMAGE} is there already")
        return
    with step(f"Import {versions.BASE_IMAGE}"):
        images.load(archive)
        marker.write_text(images.digest(versions.BASE_IMAGE) or "")


def base_image_archive() -> Path:
    """The image as a file in the cache, made once for each list of packages."""
    inputs = repr((versions.DEBIAN_SUITE, PACKAGES, CONFIG))
    digest = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    archive = cache_root() / "images" / f"debian-python-{digest}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    layer = archive.with_suffix(".layer.tar")
    argv = [find_program("mmdebstrap") or "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    with step(f"Make {versions.BASE_IMAGE} from Debian packages"):
        layer.unlink(missing_ok=True)
        log = cache_root() / "logs" / "base-image.log"
        run_long([*argv, versions.DEBIAN_SUITE, str(layer)], "Debian base image", log)
        write_image(layer, archive, versions.BASE_IMAGE, CONFIG)
        layer.unlink()
    for old in archive.parent.glob("debian-python-*.tar"):
        if old != archive:
            old.unlink()
    return archive
