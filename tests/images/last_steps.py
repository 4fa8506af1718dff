"""What an attempt does that resumes where the training had come to its end; runs in the trainer's environment.

python last_steps.py <trainer_image> <empty directory>
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from checkpoints import CheckpointCallback, stop_at_the_end  # type: ignore[import-not-found]
from early_stopping import EarlyStoppingCallback  # type: ignore[import-not-found]
from process_group import ProcessGroup  # type: ignore[import-not-found]
from transformers import Trainer, TrainingArguments

from finetune_operator.contract.training import EarlyStopping

STEPS = 3
ROWS = [{"values": [float(row)], "labels": [0.0]} for row in range(8)]
CASES: dict[str, dict[str, Any]] = {
    "maxSteps in mid-epoch": {"max_steps": STEPS},
    "epochs that end in mid-epoch": {"num_train_epochs": STEPS / len(ROWS)},
    "a whole epoch": {"num_train_epochs": 1},
    "early stopping": {"max_steps": 7, "eval_strategy": "steps", "eval_steps": STEPS},
}


class Line(torch.nn.Module):
    """As little of a model as a trainer takes; its held-out loss is no number that could fall."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = ((values * self.weight - labels) ** 2).mean()
        return {"loss": loss if self.training else loss * 0 + 1}


def attempt(directory: Path, options: dict[str, Any], resume_from: str | None) -> dict[str, Any]:
    arguments = TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=1,
        save_steps=STEPS,
        lr_scheduler_type="constant",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        prediction_loss_only=True,
        **options,
    )
    trainer = Trainer(model=Line(), args=arguments, train_dataset=ROWS, eval_dataset=ROWS[:1])
    trainer.add_callback(CheckpointCallback(SimpleNamespace(requested=False), None, lambda: 0, ProcessGroup()))
    if "eval_steps" in options:
        # Exhausted at the first evaluation.
        trainer.add_callback(EarlyStoppingCallback(EarlyStopping(patience=1, min_delta=float("inf"))))
    stop_at_the_end(trainer)
    trainer.train(resume_from_checkpoint=resume_from)
    return {"steps": trainer.state.global_step, "weight": float(trainer.model.weight), "epoch": trainer.state.epoch}


def main() -> None:
    found = {}
    for number, (name, options) in enumerate(CASES.items()):
        directory = Path(sys.argv[2]) / str(number)
        first = attempt(directory, options, None)
        found[name] = [first, attempt(directory, options, str(directory / f"checkpoint-{first['steps']}"))]
    Path(sys.argv[2], "found.json").write_text(json.dumps(found))


main()
