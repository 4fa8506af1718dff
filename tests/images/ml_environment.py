"""The Python environments of the images on this machine, from the same locks as theirs; made once, outside the tree.

Needs about 7 GB of disk and a package index, 40 seconds to some minutes; Axolotl's shares the larger part of it.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from local_cluster.layout import cache_root
from local_cluster.packages import Package, install

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "trainer_image" / "requirements-cpu.txt"
AXOLOTL_REQUIREMENTS = REPOSITORY / "trainer_image" / "requirements-axolotl.txt"
NEEDED_BYTES = 9_000_000_000
# As in the images' Dockerfiles: kernels are compiled at run time, and vLLM's are linked with libnuma.
PACKAGES = (
    Package("gcc", ("gcc",)),
    Package("g++", ("g++",)),
    Package("python3-dev", (), (f"{sysconfig.get_path('include')}/Python.h",)),
    Package("libnuma1", (), (f"/usr/lib/{platform.machine()}-linux-gnu/libnuma.so.1",)),
)


def ensure_python() -> Path:
    """The interpreter of the common layer; raises RuntimeError or Refused saying what is missing."""
    return _ensure("ml", REQUIREMENTS)


def ensure_axolotl_python() -> Path:
    """The same of the trainer for backend Axolotl."""
    return _ensure("ml-axolotl", AXOLOTL_REQUIREMENTS)


def ensure_converter() -> Path:
    """The directory of llama.cpp's converter to GGUF, as in the image."""
    script = REPOSITORY / "trainer_image" / "install-converter"
    inputs = script.read_bytes() + script.with_name("requirements-converter.txt").read_bytes()
    home = cache_root() / "llama.cpp" / hashlib.sha256(inputs).hexdigest()[:16]
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            subprocess.run(["sh", str(script), str(home), _uv()], check=True)
            (home / "complete").touch()
    return home


def _ensure(name: str, requirements: Path) -> Path:
    install(PACKAGES)
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = cache_root() / name / digest
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            _make(home, requirements)
            (home / "complete").touch()
    return home / "bin" / "python"


def _make(home: Path, requirements: Path) -> None:
    free = shutil.disk_usage(home.parent).free
    if free < NEEDED_BYTES:
        raise RuntimeError(f"{home.parent} has {free / 1e9:.0f} GB free; torch, vLLM and Unsloth need 9 GB")
    uv = _uv()
    # Python compiles what is imported; all of it would take minutes.
    environment = os.environ | {"VIRTUAL_ENV": str(home)}
    subprocess.run([uv, "venv", "--clear", "--python", sys.executable, str(home)], check=True)
    install = [uv, "pip", "install", "--no-deps", "--requirement", str(requirements)]
    subprocess.run(install, check=True, env=environment)


def _uv() -> str:
    uv = shutil.which("uv") or next(map(str, cache_root().glob("uv/*/bin/uv")), None)
    if uv is None:
        raise RuntimeError("uv was not found: run `make venv`, or install it with pip")
    return uv
