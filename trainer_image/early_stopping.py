"""Ends a training whose held-out loss no longer falls.

What was measured before is read from the trainer's own history, which a checkpoint keeps: a resumed training stops
where an uninterrupted one would.
"""

from collections.abc import Iterable
from typing import Any

from best_checkpoint import evaluations
from failures import log
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_operator.contract.training import EarlyStopping


def is_exhausted(losses: Iterable[float], rule: EarlyStopping) -> bool:
    """Whether the last `patience` evaluations were all no better than the best before them."""
    best, waited = float("inf"), 0
    for loss in losses:
        if loss < best - rule.min_delta:
            best, waited = loss, 0
        else:
            waited += 1
        if waited >= rule.patience:
            return True
    return False


class EarlyStoppingCallback(TrainerCallback):
    def __init__(self, rule: EarlyStopping) -> None:
        self._rule = rule

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Of an attempt that follows one which died when it had stopped."""
        self.on_evaluate(args, state, control, **kwargs)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        losses = list(evaluations(state.log_history).values())
        if is_exhausted(losses, self._rule):
            log("the held-out loss no longer falls", step=state.global_step, eval_losses=losses[-self._rule.patience :])
            control.should_training_stop = True
