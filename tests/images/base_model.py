"""The base model of these tests: trained once for the same program, data and libraries, and kept outside the tree."""

import fcntl
import hashlib
import subprocess
from pathlib import Path

from local_cluster.layout import cache_root
from tests.images.ml_environment import REPOSITORY, REQUIREMENTS
from tests.images.training import environment_of_images

PROGRAM = REPOSITORY / "trainer_image" / "base_model.py"
EPOCHS = 14
# All epochs on any machine: a model whose training was cut short would be kept, and be worse for ever.
MAX_SECONDS = 900


def ensure_base_model(python: Path, conversations: bytes) -> Path:
    """Its directory, not to be written to, for a JSONL of conversations."""
    inputs = PROGRAM.read_bytes() + REQUIREMENTS.read_bytes() + f"{EPOCHS} {MAX_SECONDS}".encode() + conversations
    home = cache_root() / "test-base-models" / hashlib.sha256(inputs).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        data, model = home / "conversations.jsonl", home / "model"
        data.write_bytes(conversations)
        command = [str(python), str(PROGRAM), "--data", str(data), "--output", str(model)]
        command += ["--seconds", str(MAX_SECONDS), "--epochs", str(EPOCHS)]
        if not model.exists():
            subprocess.run(command, check=True, env=environment_of_images())
    return model
