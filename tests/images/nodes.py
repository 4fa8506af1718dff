"""The nodes of one training as processes of this machine: each is the trainer as its pod starts it, on loopback."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.images.ml_environment import REPOSITORY
from tests.images.training import POLL_SECONDS, TOKEN, Job, TrainerProcess, environment_of_images


@dataclass
class Node(TrainerProcess):
    """The process that answers for a node; torchrun's processes are its children."""

    termination_message: Path = Path()

    def worker(self) -> int:
        """The process id of its only process that trains."""
        (pid,) = children_of(self.process.pid)
        return pid

    def outcome(self) -> dict[str, Any] | None:
        """What the kubelet would read."""
        file = self.termination_message
        found: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return found

    def wait_for_step(self, step: int, timeout_seconds: float = 400) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not any(line["step"] >= step for line in self.lines("step")):
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"no step {step} in the log:\n{self.log_file.read_text()[-3000:]}")
            time.sleep(POLL_SECONDS)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def started(job: Job, attempt: str, nodes: int = 2) -> Iterator[Sequence[Node]]:
    """One attempt of all nodes, which ends with this at the latest."""
    config_file = job.artifacts / f"{job.name}.json"
    config_file.write_text(job.config.model_dump_json(by_alias=True, exclude_none=True))
    port = free_port()
    found = [_start(job, config_file, attempt, node, nodes, port) for node in range(nodes)]
    try:
        yield found
    finally:
        for each in found:
            # With the processes of its own, which would go on without it.
            with suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()


def _start(job: Job, config_file: Path, attempt: str, node: int, nodes: int, port: int) -> Node:
    stem = f"{job.name}-{attempt}-node-{node}"
    message, log_file = job.artifacts / f"{stem}.termination", job.artifacts / f"{stem}.log"
    command = [str(job.python), str(REPOSITORY / "trainer_image" / "train.py"), "--config", str(config_file)]
    command += ["--artifacts", str(job.artifacts), "--termination-message", str(message)]
    command += ["--processes-per-node", "1", "--nodes", str(nodes), "--node", str(node)]
    command += ["--leader", f"127.0.0.1:{port}", "--address", f"127.0.0.{node + 1}"]
    environment = environment_of_images() | {
        "FINETUNE_INTERNAL_TOKEN": TOKEN,
        # As in a pod, whose name leads to its own address.
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    return Node(process, log_file, message)
