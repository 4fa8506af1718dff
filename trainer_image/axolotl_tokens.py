"""The count of tokens of Axolotl's trainer, where TRL's trainers have it.

Transformers counts them itself and keeps the count in its checkpoints, so that a resumed training goes on counting.
"""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TokenCount(TrainerCallback):
    """To be added before the callbacks that read the count."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._trainer._total_train_tokens = state.num_input_tokens_seen

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            logs["num_tokens"] = state.num_input_tokens_seen
