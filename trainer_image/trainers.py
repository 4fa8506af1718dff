"""TRL's trainer for a job: its dataset, its arguments, and what of them the user wrote."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arguments import WHERE, known_fields, parse, refused
from failures import GivenUp, log
from process_group import ProcessGroup, name_cpu_without_number, training_arguments
from rows import tokenize_all

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import TrainingConfig

MOST_LOGGED_STEPS = 200  # reading the loss off a GPU waits for it: in a long training not at every step
Rows = list[dict[str, Any]]


def make_trainer(config: TrainingConfig, model: Any, tokenizer: Any, rows: Rows, test_rows: Rows, output: Path) -> Any:
    """TRL's, as `backends.make_trainer`."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    training = config.training
    is_dpo = config.method == "DPO"
    configuration, trainer_class = (DPOConfig, DPOTrainer) if is_dpo else (SFTConfig, SFTTrainer)
    given = parse(configuration, training.arguments)
    known = known_fields(configuration)
    told = arguments_of(config, test_rows, output)
    if unknown := told.keys() - known.keys():
        raise ValueError(f"this release of TRL has no argument {min(unknown)}")
    dataset = pairs(rows) if is_dpo else conversations(config, tokenizer, rows)
    datasets = {"train_dataset": dataset}
    if evaluates(config):
        datasets["eval_dataset"] = pairs(test_rows) if is_dpo else conversations(config, tokenizer, test_rows)
    arguments = _taken(config, lambda: configuration(**told))
    check_kept(config, arguments, given)
    if training.packing:
        # Without a GPU Unsloth turns it off, since it takes SDPA for unable; `check_packing` finds out.
        arguments.packing = True
        attend_by_conversation(config, model)
    trainer = _taken(config, lambda: trainer_class(model=model, args=arguments, processing_class=tokenizer, **datasets))
    name_cpu_without_number(trainer.args)
    if training.packing:
        from packing import check_packing

        check_packing(trainer, list(dataset), config.backend)
    if training.optimizer or given:
        # Otherwise made when the training begins, where a complaint would look like a crash.
        _taken(config, trainer.create_optimizer)
        _taken(config, lambda: trainer.create_scheduler(num_training_steps=1))
        trainer.lr_scheduler = None
    if "logging_steps" not in given:
        trainer.args.logging_steps = logging_steps(config, len(trainer.train_dataset), trainer.args.world_size)
    if training.early_stopping:
        from early_stopping import EarlyStoppingCallback

        trainer.add_callback(EarlyStoppingCallback(training.early_stopping))
    return trainer


def attend_by_conversation(config: TrainingConfig, model: Any) -> None:
    """On a GPU Unsloth has kernels of its own for packed rows."""
    import torch

    if config.backend == "Unsloth" and torch.cuda.is_available():
        return
    from packed_attention import use_packed_attention

    log("packed rows", attended_by_conversation=use_packed_attention(model))


def own_arguments(config: TrainingConfig) -> dict[str, Any]:
    """Those of one method alone."""
    if config.method == "DPO":
        return {"beta": config.training.dpo_beta}
    return {"packing": config.training.packing, "eval_packing": False}


def arguments_of(config: TrainingConfig, test_rows: Rows, output: Path) -> dict[str, Any]:
    """All that TRL's configuration is told."""
    from trl import DPOConfig, SFTConfig

    given = parse(DPOConfig if config.method == "DPO" else SFTConfig, config.training.arguments)
    return common_arguments(config, output) | evaluation_arguments(config, test_rows) | own_arguments(config) | given


def _taken(config: TrainingConfig, make: Callable[[], Any]) -> Any:
    """What TRL complains about before the training is about what the user chose, where something was chosen."""
    try:
        return make()
    except (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError) as error:
        chosen = [*config.training.arguments, *([config.training.optimizer] if config.training.optimizer else [])]
        if not chosen:
            raise
        fact = str(error).strip().splitlines()
        remedy = f"correct spec.training.optimizer or {WHERE} ({', '.join(chosen)})"
        raise refused(f"TRL refuses its arguments: {fact[0] if fact else type(error).__name__}", remedy) from error


def check_kept(config: TrainingConfig, arguments: Any, given: Mapping[str, Any]) -> None:
    """Unsloth replaces what it takes for unfit for the machine, and goes on."""
    chosen = config.training.optimizer
    used = str(getattr(arguments.optim, "value", arguments.optim))
    if chosen and used.removesuffix("_fused") != chosen.removesuffix("_fused"):
        message = f"optimizer {chosen} does not work on this machine: {used} would be used in its place"
        raise refused(message, "set spec.training.optimizer to one that does, such as adamw_torch, or ask for a GPU")
    for name, value in given.items():
        if isinstance(value, bool | int | float) and getattr(arguments, name) != value:
            message = f"argument {name} can't be {value} on this machine: it becomes {getattr(arguments, name)}"
            raise refused(message, f"remove {name} from {WHERE}")


def evaluates(config: TrainingConfig) -> bool:
    return config.training.eval_steps is not None or config.training.early_stopping is not None


def check_held_out(config: TrainingConfig, test_rows: Rows) -> None:
    if evaluates(config) and not test_rows:
        message = "an evaluation during the training needs held-out rows and there are none"
        raise refused(message, "raise spec.dataset.testFraction, or remove spec.training.evalSteps and earlyStopping")


def evaluation_arguments(config: TrainingConfig, test_rows: Rows) -> dict[str, Any]:
    """With early stopping each evaluation has its checkpoint, since the best of them is what is published."""
    training = config.training
    if not evaluates(config):
        return {}
    check_held_out(config, test_rows)
    steps = training.eval_steps or training.save_steps
    arguments: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": steps,
        "per_device_eval_batch_size": training.batch_size,
        "prediction_loss_only": True,
    }
    if training.early_stopping is None:
        return arguments
    return arguments | {
        "save_steps": steps,
        # The best, the newest, and the one before it, which is there while the newest is not whole.
        "save_total_limit": 3,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


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
        "lr_scheduler_type": training.lr_scheduler,
        # Below 1 Transformers takes it for the share of all steps.
        "warmup_steps": training.warmup_steps if training.warmup_ratio is None else training.warmup_ratio,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "neftune_noise_alpha": training.neftune_noise_alpha,
        "max_length": training.max_seq_length,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": 2,
        "seed": training.seed,
        "use_cpu": not has_gpu,
        **training_arguments(ProcessGroup.of_environment(), has_gpu=has_gpu),
        "bf16": bf16,
        "fp16": has_gpu and not bf16,
        "disable_tqdm": True,
        "report_to": "none",
        "run_name": config.job.name,
        **_optimizer(training.optimizer),
    }


def _optimizer(name: str | None) -> dict[str, str]:
    from transformers.training_args import OptimizerNames

    if name is None:
        return {}
    known = sorted(member.value for member in OptimizerNames)
    if name not in known:
        raise refused(f"Transformers knows no optimizer {name}", f"set spec.training.optimizer to one of {known}")
    return {"optim": name}


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


def logging_steps(config: TrainingConfig, examples: int, processes: int = 1) -> int:
    """At most `MOST_LOGGED_STEPS` of the steps that there will be."""
    training = config.training
    per_epoch = math.ceil(examples / (training.batch_size * training.gradient_accumulation_steps * processes))
    return max(1, (training.max_steps or math.ceil(training.epochs * per_epoch)) // MOST_LOGGED_STEPS)
