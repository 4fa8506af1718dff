"""A pod that trains at a provider, as a process of its own: `python remote_pod.py DIRECTORY`.

It is what the image runs, with less patience than in a cluster. Without KUBECONFIG, the file `unwanted` is what the API
server would say.
"""

import asyncio
import os
import sys
from pathlib import Path

from finetune_operator.contract.training import TrainingConfig
from finetune_operator.logs import configure_logging
from finetune_operator.providers.patience import Patience
from finetune_operator.providers.train_remote import attempt
from finetune_operator.providers.training import Surroundings

QUICK = Patience(seconds=8, first_pause_seconds=0.05, longest_pause_seconds=0.2)


def surroundings_in(directory: Path) -> Surroundings:
    """The volume and the termination message in a directory."""

    async def unwanted(config: TrainingConfig, workload: str) -> str | None:
        if "KUBECONFIG" in os.environ:
            return await Surroundings().unwanted(config, workload)
        file = directory / "unwanted"
        return file.read_text() if file.exists() else None

    return Surroundings(
        artifacts=directory / "artifacts",
        termination_log=directory / "termination-log",
        lock=Patience(seconds=0.5, first_pause_seconds=0.05),
        start=QUICK,
        wait=Patience(first_pause_seconds=0.05, longest_pause_seconds=0.2),
        leave=QUICK,
        settle_seconds=0.5,
        unwanted=unwanted,
    )


if __name__ == "__main__":
    configure_logging()
    place = Path(sys.argv[1])
    sys.exit(asyncio.run(attempt(place / "training.json", surroundings_in(place), os.environ)))
