"""Programs of ours in a process of their own: what ends them (memory, a crash, a hang) does not end the trainer.

Where the node runs out of memory, the kernel takes the child first. Where the container does, kubelets since 1.28 have
it kill all processes of the container at once (memory.oom.group of cgroup v2), so that a child also keeps below the
limit by itself (memory.py).
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
FIRST_TO_BE_KILLED = "1000"  # proc_pid_oom_score_adj(5); a process may always make itself a better victim
# How torchrun tells its processes of each other: a child is none of them.
OF_TORCHRUN = ("GROUP_", "LOCAL_", "MASTER_", "RANK", "ROLE_", "TORCHELASTIC_", "WORLD_SIZE")


class ChildFailed(Exception):
    """It did not end well; the message says how."""


def run_child(script: str | Path, arguments: Sequence[str], timeout_seconds: float) -> None:
    """Run a script beside this file, which writes to our log; raises ChildFailed."""
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - our own script
            command, stdin=subprocess.DEVNULL, timeout=timeout_seconds, check=False, env=environment()
        )
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"was stopped after {timeout_seconds:g} s") from error
    if done.returncode == -signal.SIGKILL:
        raise ChildFailed("was killed, as the kernel does where memory runs out")
    if done.returncode < 0:
        raise ChildFailed(f"crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise ChildFailed(f"ended with {done.returncode}")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_TORCHRUN)}


def subordinate() -> None:
    """First thing in a child: it ends with its parent, whose successor begins anew, and before it without memory."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_BE_KILLED)
