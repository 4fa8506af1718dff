"""What a job's backend stands for: who loads the model, and who makes the trainer."""

from pathlib import Path
from typing import Any

from finetune_operator.contract.training import TrainingConfig

Rows = list[dict[str, Any]]


def load(config: TrainingConfig, dtype: Any) -> tuple[Any, Any]:
    """Base model with adapter, and tokenizer; Axolotl's config says which dtype."""
    if config.backend == "Axolotl":
        import axolotl_backend

        return axolotl_backend.load(config)
    from peft_models import load_peft, load_unsloth

    return (load_unsloth if config.backend == "Unsloth" else load_peft)(config, dtype)


def make_trainer(config: TrainingConfig, model: Any, tokenizer: Any, rows: Rows, test_rows: Rows, output: Path) -> Any:
    """Axolotl's trainer or TRL's; to be called after the model is loaded, since Unsloth has to be imported before TRL.

    The held-out rows are only used where the job evaluates while it trains.
    """
    if config.backend == "Axolotl":
        import axolotl_backend

        return axolotl_backend.make_trainer(config, model, tokenizer, rows, test_rows, output)
    import trainers

    return trainers.make_trainer(config, model, tokenizer, rows, test_rows, output)
