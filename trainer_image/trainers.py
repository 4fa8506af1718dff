"""TRL's trainer for a job: its dataset, its arguments, and what of them the user wrote."""

import math
from pathlib import Path
from typing import Any

from failures import GivenUp
from rows import tokenize_all

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import TrainingConfig

MOST_LOGGED_STEPS = 200  # reading the loss off a GPU waits for it: in a long training not at every step
Rows = list[dict[str, Any]]


def make_trainer(config: TrainingConfig, model: Any, tokenizer: Any, rows: Rows, output: Path) -> Any:
    """To be called after the model is loaded: Unsloth has to be imported before TRL."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    common = common_arguments(config, output)
    if config.method == "DPO":
        arguments = DPOConfig(beta=config.training.dpo_beta, **common)
        trainer = DPOTrainer(model=model, args=arguments, train_dataset=pairs(rows), processing_class=tokenizer)
    else:
        dataset = conversations(config, tokenizer, rows)
        arguments = SFTConfig(**common)
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    trainer.args.logging_steps = logging_steps(config, len(trainer.train_dataset))
    return trainer


def common_arguments(config: TrainingConfig, output: Path) -> dict[str, Any]:
    """What both methods have in common."""
    import torch

    training = config.training
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(output),
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "max_length": training.max_seq_length,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": 2,
        "seed": training.seed,
        "use_cpu": not has_gpu,
        "bf16": bf16,
        "fp16": has_gpu and not bf16,
        "disable_tqdm": True,
        "report_to": "none",
    }


def conversations(config: TrainingConfig, tokenizer: Any, rows: Rows) -> Any:
    from datasets import Dataset

    limit = config.training.max_seq_length
    tokens = tokenize_all(tokenizer, (row["messages"] for row in rows), limit)
    if not tokens:
        message = f"no row has an answer within {limit} tokens"
        raise GivenUp(FailureReason.DATASET_INVALID, message, "raise spec.training.maxSeqLength or shorten the prompts")
    return Dataset.from_list(tokens)


def pairs(rows: Rows) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows])


def logging_steps(config: TrainingConfig, examples: int) -> int:
    """At most `MOST_LOGGED_STEPS` of the steps that there will be."""
    training = config.training
    per_epoch = math.ceil(examples / (training.batch_size * training.gradient_accumulation_steps))
    return max(1, (training.max_steps or math.ceil(training.epochs * per_epoch)) // MOST_LOGGED_STEPS)
