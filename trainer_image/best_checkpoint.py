"""What early stopping publishes: the state of the best evaluation, or the best of those that are left, and says so.

Where the best checkpoint is gone, Transformers warns and goes on with the last state; where it is damaged, it takes
what it can read of it. Between the evaluation and the end of the training lie hours, and attempts on other nodes.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attempt import Termination
from checkpoints import read
from failures import log

from finetune_operator.contract.training import LostCheckpoint


class BestCheckpoint:
    """Loads it in Transformers' place, at the end of the training; `lost` where another state had to do."""

    def __init__(self, trainer: Any, termination: Termination) -> None:
        self._trainer, self._termination = trainer, termination
        self._load_from_checkpoint = trainer._load_best_model
        self.lost: LostCheckpoint | None = None
        trainer._load_best_model = self.load

    def load(self) -> None:
        if self._termination.requested:
            return  # nothing is published, and the next attempt begins with the newest
        state = self._trainer.state
        losses = evaluations(state.log_history)
        best_first = sorted((loss, step) for step, loss in losses.items() if math.isfinite(loss))
        if not best_first:
            return
        taken = next((step for _, step in best_first if self._take(step)), state.global_step)
        best_loss, best_step = best_first[0]
        if taken != best_step:
            self.lost = LostCheckpoint(
                step=best_step, eval_loss=best_loss, published_step=taken, published_eval_loss=losses.get(taken)
            )
            log("the best checkpoint is lost; another state is published", **self.lost.model_dump())

    def _take(self, step: int) -> bool:
        """Whether the model is that of the step now."""
        state = self._trainer.state
        if step == state.global_step:
            return True
        directory = Path(str(self._trainer.args.output_dir)) / f"checkpoint-{step}"
        checkpoint, damage = read(directory)
        if checkpoint is None and not directory.exists():
            return False
        if checkpoint is None:
            log("a checkpoint is not whole and is not published", checkpoint=directory.name, damage=damage)
            return False
        state.best_model_checkpoint = str(directory)
        self._load_from_checkpoint()
        return True


def evaluations(history: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Held-out loss by step, in the order of steps, of each state that has a checkpoint.

    `eval_on_start` also measures the model before its first step, and that of a checkpoint again on resuming.
    """
    found: dict[int, float] = {}
    for entry in history:
        if "eval_loss" in entry and entry["step"] > 0:
            found.setdefault(int(entry["step"]), float(entry["eval_loss"]))
    return found
