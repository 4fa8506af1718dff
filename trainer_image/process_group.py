"""The processes that train one adapter together, as one of them sees the others; alone, it asks nobody.

torchrun starts them (launch.py). Each has a whole copy of the model and learns from examples of its own; what changes
the course of the training, such as that a node wants its pod to leave, they decide together. The first of them, the
leader, does what must be done once.
"""

import os
import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

EXIT_PEERS_LOST = 69  # EX_UNAVAILABLE of sysexits.h; the Job tries again, and does not count it
# A peer that died closes its connections; one whose node lost power says nothing more. Longer than the slowest
# step, evaluation or checkpoint for which the others wait.
COLLECTIVE_TIMEOUT = timedelta(minutes=15)
POLL_SECONDS = 0.2
LISTENING_SECONDS = 60.0
# Of gloo, whose errors have no class of their own.
LOST_BY_WORDS = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out waiting|socket (closed|timeout)|gloo/transport", re.I
)
LOST_BY_CLASS = frozenset({"DistNetworkError", "DistStoreError", "DistBackendError"})


@dataclass
class ProcessGroup:
    """`rank` of `size` processes, `local_rank` on this node."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _store: Any = field(default=None, repr=False)
    _control: Any = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> "ProcessGroup":
        """By torchrun's variables; without them this process is alone."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def connect(self) -> None:
        """Meet the others; before anything that takes long, since it is done where no signal is heard."""
        if not self.is_alone:
            self._connection()

    def say(self, key: str, word: str) -> None:
        """From the leader to all; returns when they have heard it, since its words go with its process."""
        if self.is_alone:
            return
        store = self._connection()
        store.set(key, word)
        heard = [f"{key}/{rank}" for rank in range(1, self.size)]
        deadline = time.monotonic() + LISTENING_SECONDS
        while not store.check(heard) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def hear(self, key: str) -> str:
        """What the leader says, however long it takes; in turns of Python, so that SIGTERM is heard, too."""
        store = self._connection()
        while not store.check([key]):
            time.sleep(POLL_SECONDS)
        word: bytes = store.get(key)
        store.set(f"{key}/{self.rank}", "")
        return word.decode()

    def join(self) -> None:
        """From here on all do the same in the same order."""
        if self.is_alone:
            return
        import torch
        from torch import distributed

        has_gpu = torch.cuda.is_available()
        if has_gpu:
            torch.cuda.set_device(self.local_rank)
        distributed.init_process_group(
            "nccl" if has_gpu else "gloo",
            store=self._connection(),
            rank=self.rank,
            world_size=self.size,
            timeout=COLLECTIVE_TIMEOUT,
        )
        # Asked at each step: over sockets it does not wait for the GPU.
        self._control = distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        if self.is_alone:
            return flag
        import torch
        from torch import distributed

        flags = torch.tensor([int(flag)])
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=self._control)
        return bool(flags.item())

    def share(self, value: Any) -> Any:
        """The leader's value, in all processes."""
        if self.is_alone:
            return value
        from torch import distributed

        values = [value if self.is_leader else None]
        distributed.broadcast_object_list(values, src=0, group=self._control)
        return values[0]

    def wait_for_all(self) -> None:
        """Returns once all have come here."""
        self.any(flag=False)

    def is_lost(self, error: BaseException) -> bool:
        """Whether this error tells of another process that is gone."""
        if self.is_alone or not isinstance(error, RuntimeError | OSError):
            return False
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return bool(kinds & LOST_BY_CLASS or LOST_BY_WORDS.search(str(error)))

    def _connection(self) -> Any:
        """To the store that the leader keeps for this attempt."""
        if self._store is None:
            from torch.distributed.rendezvous import rendezvous

            self._store, _, _ = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
        return self._store


def name_cpu_without_number(arguments: Any) -> None:
    """Of Transformers, which would put a checkpoint's tensors onto the device of several processes on CPUs: `cpu:0` is
    what Accelerate calls it, and torch.load knows `cpu` alone."""
    import torch

    if arguments.device.type == "cpu":
        arguments._setup_devices = torch.device("cpu")


def training_arguments(group: ProcessGroup, *, has_gpu: bool) -> dict[str, Any]:
    """Transformers' arguments of a training in several processes."""
    if group.is_alone:
        return {}
    return {
        "ddp_backend": "nccl" if has_gpu else "gloo",
        "ddp_timeout": int(COLLECTIVE_TIMEOUT.total_seconds()),
        # Each step uses every weight of the adapter; to look for unused ones would forbid gradient checkpointing.
        "ddp_find_unused_parameters": False,
    }
