"""The Python environment of the repository, made from uv.lock; standard library only, since it runs first.

python3 -m demo.environment
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from local_cluster import packages
from local_cluster.console import Refused, fail, note, run_long, step
from local_cluster.layout import cache_root

REPOSITORY = Path(__file__).resolve().parent.parent
UV = "uv==0.13.8"
MINIMUM = (3, 11)
VENV_PROOF = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/ensurepip/__init__.py"


def ensure() -> None:
    """Makes or updates .venv; does nothing, and quickly, where it matches the lock file already."""
    stamp = REPOSITORY / ".venv" / "synced-with"
    wanted = _lock_digest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if sys.version_info < MINIMUM:
        raise Refused(f"Python {MINIMUM[0]}.{MINIMUM[1]} or newer is needed, python3 is {sys.version.split()[0]}")
    with step("Make the Python environment from uv.lock"):
        command = [str(uv()), "sync", "--locked", "--all-extras", "--python", sys.executable]
        environment = os.environ | {"UV_PROJECT_ENVIRONMENT": str(REPOSITORY / ".venv")}
        run_long(command, "uv sync", cache_root() / "logs" / "uv-sync.log", cwd=REPOSITORY, environment=environment)
    stamp.write_text(wanted)


def _lock_digest() -> str:
    content = (REPOSITORY / "uv.lock").read_bytes() + (REPOSITORY / "pyproject.toml").read_bytes()
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def uv() -> Path:
    """uv of a fixed version, in an environment of its own in the cache."""
    home = cache_root() / "uv" / UV.replace("==", "-")
    program = home / "bin" / "uv"
    if not program.exists():
        if not _can_make_environments():
            note("this Python can't make virtual environments: installing the system's package for it")
            packages.install((packages.Package("python3-venv", (), (VENV_PROOF,)),))
        logs = cache_root() / "logs"
        run_long([sys.executable, "-m", "venv", "--clear", str(home)], "venv", logs / "venv.log")
        run_long([str(home / "bin" / "pip"), "install", "--quiet", UV], "pip install uv", logs / "uv-install.log")
    return program


def _can_make_environments() -> bool:
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    try:
        ensure()
    except Refused as error:
        sys.exit(fail(str(error)))
