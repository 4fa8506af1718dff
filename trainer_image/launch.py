"""One node of a training in several processes: torchrun starts them, this process answers for them.

    python train.py ... --processes-per-node 4 [--nodes 2 --node 1 --leader HOST:PORT --address HOST]

Nodes meet by torchrun's c10d rendezvous on the first of them, which also keeps a pod that comes anew from joining those
that still belong to the attempt before. Nothing is restarted within a pod: when one ends, the others lose it and end
too, and Kubernetes starts all of them again, from the last whole checkpoint. Once the adapter is published, only the
first node is left: this process becomes an ordinary trainer, which finds `trained.json` or the result.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import durable
from attempt import EXIT_LOCKED, EXIT_TERMINATED
from failures import log
from process_group import EXIT_PEERS_LOST
from publish import read_result

from finetune_operator.contract.failures import EXIT_CODES, SIGKILL_EXIT_CODE
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

PROGRAM = Path(__file__).with_name("train.py")
CONNECT_TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 1.0
SHUTDOWN_SECONDS = 45
"""For processes that torchrun stops since it loses the other nodes; of the pod's 60."""
KILLED_AFTER_SECONDS = 30
"""The first of a node's processes has died, until torchrun kills the others; its own, whatever it is told."""
MOST_LOSSES = 5
"""In a row, without a checkpoint in between, before the loss of a peer counts as a failure."""


class Children:
    """SIGTERM goes to the processes, which agree on a step to stop at; without any, it ends this one."""

    def __init__(self) -> None:
        self.asked_to_leave = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_leave = True
        children = children_of(os.getpid())
        for child in children:
            os.kill(child, signal.SIGTERM)
        if not children:
            raise SystemExit(EXIT_TERMINATED)


def launch(arguments: argparse.Namespace, config: TrainingConfig) -> int:
    """The node's exit code; does not return on the first node once the training has been published."""
    children = Children()
    paths = JobPaths.of(config, str(arguments.artifacts))
    if is_trained(paths):
        return go_on_alone(arguments) if arguments.node == 0 else 0
    log("node", node=arguments.node, nodes=arguments.nodes, processes=arguments.processes_per_node)
    set_environment(arguments.processes_per_node)
    code = run_together(arguments, config)
    if children.asked_to_leave:
        return EXIT_TERMINATED
    if code == EXIT_PEERS_LOST and not is_getting_on(paths, arguments.node):
        log("the processes lose each other again and again, without a new checkpoint", times=MOST_LOSSES)
        return 1
    return go_on_alone(arguments) if code == 0 and arguments.node == 0 else code


def is_trained(paths: JobPaths) -> bool:
    """Whether the adapter is published, so that no other node is needed."""
    adapter = Path(paths.adapter)
    return any(read_result(Path(file), adapter) is not None for file in (paths.result, paths.trained))


def go_on_alone(arguments: argparse.Namespace) -> NoReturn:
    sys.stdout.flush()
    command = [sys.executable, str(PROGRAM), *job_arguments(arguments, arguments.termination_message)]
    os.execv(sys.executable, command)  # noqa: S606 - the trainer itself, by a list of arguments


def job_arguments(arguments: argparse.Namespace, termination_message: Path) -> list[str]:
    return [
        "--config", str(arguments.config),
        "--artifacts", str(arguments.artifacts),
        "--termination-message", str(termination_message),
        "--lock-wait-seconds", str(arguments.lock_wait_seconds),
    ]  # fmt: skip


def set_environment(processes: int) -> None:
    """Of the processes: cores are shared out, since each would start a thread for all of them."""
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(SHUTDOWN_SECONDS)
    # The leader keeps a store of its own: in torchrun's, processes would find what those before them have left.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"


def run_together(arguments: argparse.Namespace, config: TrainingConfig) -> int:
    """Meet the other nodes, train, and return the exit code by which this one has to end."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    deadline = time.monotonic() + arguments.rendezvous_wait_seconds
    with tempfile.TemporaryDirectory(prefix="messages-") as directory:
        messages = Path(directory) / "message"
        while True:
            if not leader_is_there(arguments, deadline):
                log("the other nodes did not come", waited_seconds=arguments.rendezvous_wait_seconds)
                return EXIT_PEERS_LOST
            try:
                torchrun(torchrun_arguments(arguments, config.job.uid, messages))
            except ChildFailedError as error:
                codes = exit_codes(error.failures.values())
                code = exit_code_of(codes.values())
                log("processes have ended", exit_codes=codes, exit_code=code)
                tell(codes, code, messages, arguments.termination_message)
                return code
            except (RendezvousError, ConnectionError) as error:
                if time.monotonic() > deadline:
                    log("the nodes did not meet", error=repr(error))
                    return EXIT_PEERS_LOST
                log("the nodes have not met yet; trying again", error=repr(error))
                time.sleep(RETRY_SECONDS)
            else:
                return 0


def torchrun(arguments: list[str]) -> None:
    from torch.distributed import run

    run.run(run.parse_args(arguments))


def torchrun_arguments(arguments: argparse.Namespace, run_id: str, messages: Path) -> list[str]:
    """https://docs.pytorch.org/docs/stable/elastic/run.html"""
    is_first = "true" if arguments.node == 0 else "false"
    several = [
        "--rdzv-endpoint", arguments.leader,
        "--rdzv-conf", f"is_host={is_first},join_timeout={int(arguments.rendezvous_wait_seconds)}",
        "--local-addr", arguments.address,
    ]  # fmt: skip
    alone = ["--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    return [
        "--nnodes", str(arguments.nodes),
        "--nproc-per-node", str(arguments.processes_per_node),
        "--rdzv-backend", "c10d",
        "--rdzv-id", run_id,
        "--max-restarts", "0",
        # SIGTERM is ours: torchrun would give the processes a fixed time, and forget how they ended.
        "--signals-to-handle", "SIGHUP",
        *(several if arguments.nodes > 1 else alone),
        str(PROGRAM), *job_arguments(arguments, messages),
    ]  # fmt: skip


def leader_is_there(arguments: argparse.Namespace, deadline: float) -> bool:
    """Waits for the first node's rendezvous; here, since torchrun waits for it where no signal is heard."""
    if arguments.node == 0:
        return True
    host, _, port = arguments.leader.rpartition(":")
    told = False
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS).close()
        except OSError as error:
            if not told:
                log("waiting for the first node", leader=arguments.leader, error=str(error))
            told = True
            time.sleep(RETRY_SECONDS)
        else:
            return True
    return False


def exit_codes(failures: "Iterable[ProcessFailure]") -> dict[int, int]:
    """By local rank; without what torchrun killed, since that would tell of a full memory."""
    failures = list(failures)
    killed_from = min(failure.timestamp for failure in failures) + KILLED_AFTER_SECONDS // 2
    return {
        failure.local_rank: failure.exitcode
        for failure in failures
        if failure.exitcode != -signal.SIGKILL or failure.timestamp < killed_from
    }


def exit_code_of(codes: Iterable[int]) -> int:
    """Of all processes' exit codes the one that says most: why, before that, and before what only follows from it."""
    return min((128 - code if code < 0 else code for code in codes), key=_weight)


def _weight(code: int) -> int:
    if code in EXIT_CODES.values():
        return 0
    return {SIGKILL_EXIT_CODE: 1, EXIT_LOCKED: 3, EXIT_TERMINATED: 4, EXIT_PEERS_LOST: 5, 0: 6}.get(code, 2)


def tell(codes: Mapping[int, int], code: int, messages: Path, termination_message: Path) -> None:
    """The words of the process that ended by that code become the pod's."""
    for local_rank in sorted(codes):
        message = message_of(messages, local_rank)
        if exit_code_of([codes[local_rank]]) == code and message.exists():
            shutil.copyfile(message, termination_message)
            return


def message_of(messages: Path, local_rank: int) -> Path:
    """Where one process leaves its termination message; the pod has one file, which two can't write."""
    return messages.with_name(f"{messages.name}-{local_rank}")


def is_getting_on(paths: JobPaths, node: int) -> bool:
    """Whether there has been a new checkpoint within this node's last losses; remembered on the volume.

    Each node counts for itself: the one that the others wait for may never come.
    """
    memory = Path(paths.directory) / f"peers-lost-{node}.json"
    checkpoint = max((path.name for path in Path(paths.checkpoints).glob("checkpoint-*")), default="", key=_step)
    try:
        known = json.loads(memory.read_text())
        losses = known["losses"] + 1 if known["checkpoint"] == checkpoint else 1
    except (OSError, ValueError, KeyError, TypeError):
        losses = 1
    durable.write(memory, json.dumps({"checkpoint": checkpoint, "losses": losses}))
    return losses < MOST_LOSSES


def _step(name: str) -> int:
    return int(name.rpartition("-")[2] or 0)


def children_of(parent: int, read: Callable[[Path], str] = Path.read_text) -> list[int]:
    """Processes that this one has started, and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent_of_it = read(stat).rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent_of_it) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found
