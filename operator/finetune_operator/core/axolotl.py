"""The same training as Axolotl's config: for backend Axolotl, and to be taken away and run outside the cluster.

What Axolotl has no word for is named, not dropped in silence.
Source: the schema `AxolotlInputConfig` of axolotl 0.19.0, by which tests/images/test_axolotl.py checks the result.
"""

from typing import NamedTuple

from finetune_operator.contract.training import TrainingConfig

OPTIMIZER = "adamw_torch_fused"  # TRL's own choice
PACKING_ATTENTION = "flash_attention_2"  # the one that keeps packed conversations apart on most GPUs


class Places(NamedTuple):
    """Where Axolotl is to find things; `base_model` is a directory or a repository of the hub."""

    base_model: str
    dataset: str
    output: str


class Axolotl(NamedTuple):
    """The config, and what of the job is not in it."""

    config: dict[str, object]
    left_out: tuple[str, ...]


def axolotl(config: TrainingConfig, places: Places) -> Axolotl:
    """Raises ValueError for a training that a provider does, whose base model nobody can download."""
    if config.remote:
        raise ValueError("backend OpenAI trains at its provider: there is nothing for Axolotl to train")
    training, lora = config.training, config.lora
    rendered: dict[str, object] = {
        "base_model": places.base_model,
        "adapter": "qlora" if training.quantization == "4bit" else "lora",
        "load_in_4bit": training.quantization == "4bit",
        "load_in_8bit": training.quantization == "8bit",
        "lora_r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "lora_target_modules": list(lora.target_modules),
        **_datasets(config, places),
        "num_epochs": training.epochs,
        "micro_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.lr_scheduler,
        "optimizer": training.optimizer or OPTIMIZER,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "sequence_len": training.max_seq_length,
        "excess_length_strategy": "truncate",
        "sample_packing": training.packing,
        "gradient_checkpointing": training.gradient_checkpointing,
        "save_steps": training.save_steps,
        "save_total_limit": 2,
        "seed": training.seed,
        "bf16": "auto",
        "output_dir": places.output,
    }
    if config.base_model_hub:
        rendered["revision_of_model"] = config.base_model_hub.revision
    if training.max_steps is not None:
        rendered["max_steps"] = training.max_steps
    if training.warmup_ratio is not None:
        rendered["warmup_ratio"] = training.warmup_ratio
    else:
        rendered["warmup_steps"] = training.warmup_steps
    if training.eval_steps is not None:
        rendered["eval_steps"] = training.eval_steps
    if training.early_stopping:
        rendered["early_stopping_patience"] = training.early_stopping.patience
        rendered["eval_steps"] = rendered["save_steps"] = training.eval_steps or training.save_steps
    if training.neftune_noise_alpha is not None:
        rendered["neftune_noise_alpha"] = training.neftune_noise_alpha
    if training.packing:
        rendered["attn_implementation"] = PACKING_ATTENTION
    return Axolotl(rendered, tuple(_left_out(config)))


def _datasets(config: TrainingConfig, places: Places) -> dict[str, object]:
    """The files of the prepared dataset; the held-out ones take the place of a share that Axolotl would split off."""
    if config.method == "DPO":
        form = {"split": "train", "type": "chat_template.default", "field_messages": "prompt"}
        chosen = {"rl": "dpo", "rl_beta": config.training.dpo_beta}
    else:
        form = {"split": "train", "type": "chat_template", "field_messages": "messages"}
        chosen = {}
    parts = {"datasets": "train"} | ({"test_datasets": "test"} if config.dataset.test_fraction else {})
    files = {
        key: [{"path": f"{places.dataset}/{part}.jsonl", "ds_type": "json", **form}] for key, part in parts.items()
    }
    return {**chosen, **files, "val_set_size": 0}


def _left_out(config: TrainingConfig) -> list[str]:
    training = config.training
    absent = {
        "spec.evaluation": config.evaluation is not None,
        "spec.outputs": bool(config.outputs),
        "spec.initFrom": config.init_from is not None,
        "spec.reportTo": config.report_to is not None,
        "spec.training.arguments": bool(training.arguments),
        "spec.training.earlyStopping.minDelta": bool(training.early_stopping and training.early_stopping.min_delta),
    }
    return [name for name, is_set in absent.items() if is_set]
