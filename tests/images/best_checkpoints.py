"""Early stopping on a model of one weight, its checkpoints damaged meanwhile; runs in the trainer's environment.

    python best_checkpoints.py <trainer_image> <empty directory>

The weight falls by a tenth at each step; the held-out loss is its distance from a target.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from best_checkpoint import BestCheckpoint  # type: ignore[import-not-found]
from checkpoints import CheckpointCallback, last_complete_checkpoint  # type: ignore[import-not-found]
from early_stopping import EarlyStoppingCallback  # type: ignore[import-not-found]
from process_group import ProcessGroup  # type: ignore[import-not-found]
from transformers import Trainer, TrainerCallback, TrainingArguments

from finetune_operator.contract.training import EarlyStopping

ROWS = [{"values": [1.0], "labels": [0.0]}] * 40
PATIENCE = 3


class Line(torch.nn.Module):
    def __init__(self, target: float) -> None:
        super().__init__()
        self.weight, self._target = torch.nn.Parameter(torch.ones(1)), target

    def forward(self, values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = (values * self.weight - labels).mean()
        return {"loss": loss if self.training else (self.weight - self._target).abs().sum()}


class At(TrainerCallback):
    """Does this after a step, once: in an attempt that follows it is done."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self._step, self._action = step, action

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            self._action()


class Killed(Exception):
    """The attempt's end."""


def kill() -> None:
    raise Killed


def attempt(directory: Path, target: float, options: dict[str, Any], *extra: TrainerCallback) -> dict[str, Any]:
    resumed = last_complete_checkpoint(directory)
    arguments = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=1,
        max_steps=30,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        save_total_limit=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        prediction_loss_only=True,
        **options,
    )
    termination = SimpleNamespace(requested=False)
    trainer = Trainer(model=Line(target), args=arguments, train_dataset=ROWS, eval_dataset=ROWS[:1])
    for callback in (
        CheckpointCallback(termination, resumed, lambda: 0, ProcessGroup()),
        EarlyStoppingCallback(EarlyStopping(patience=PATIENCE)),
        *extra,
    ):
        trainer.add_callback(callback)
    best = BestCheckpoint(trainer, termination)
    trainer.train(resume_from_checkpoint=str(resumed.directory) if resumed else None)
    lost = best.lost.model_dump() if best.lost else None
    return {"steps": trainer.state.global_step, "weight": round(float(trainer.model.weight), 3), "lost": lost}


def damaged(directory: Path, *steps: int) -> At:
    """After step 5, the last but one."""

    def damage() -> None:
        for step in steps:
            with (directory / f"checkpoint-{step}" / "model.safetensors").open("ab") as file:
                file.write(b"more")

    return At(5, damage)


def main() -> None:
    root = Path(sys.argv[2])
    found: dict[str, Any] = {}
    at_three = 0.7
    found["the best is whole"] = attempt(root / "a", at_three, {})
    found["the best is damaged"] = attempt(root / "b", at_three, {}, damaged(root / "b", 3))
    found["the best is gone"] = attempt(root / "c", at_three, {}, At(5, lambda: shutil.rmtree(root / "c/checkpoint-3")))
    found["all are damaged"] = attempt(root / "d", at_three, {}, damaged(root / "d", 3, 4, 5))
    # A start that no step betters: what was measured before the first step has no checkpoint.
    found["measured at its start, too"] = attempt(root / "e", 1.0, {"eval_on_start": True})
    for name, options in (("resumed", {}), ("resumed, and measured at its start", {"eval_on_start": True})):
        directory = root / f"f{len(found)}"
        for step in (2, 4):
            try:
                attempt(directory, at_three, options, At(step, kill))
            except Killed:
                continue
        found[name] = attempt(directory, at_three, options)
    (root / "found.json").write_text(json.dumps(found))


main()
