"""Backend Axolotl: its own loader, reader of rows and trainer, by the config that core/axolotl.py renders.

What surrounds a training stays the trainer's own, as for the other backends: lock, checkpoints, progress, publication,
evaluation. So Axolotl's parts are called one by one, as its own `axolotl.train` does, in place of its command, which
saves and resumes by rules of its own.
Source: axolotl 0.19.0, `cli/config.py`, `common/datasets.py`, `train.py`.
"""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from arguments import refused
from failures import GivenUp, log
from peft_models import with_adapter
from rows import IGNORED

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.places import DATASET_NAME
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.axolotl import Places, axolotl

Rows = list[dict[str, Any]]
# To be set before its first import.
ENVIRONMENT = {
    # It would tell its makers of each training, and copy the log into the checkpoints.
    "AXOLOTL_DO_NOT_TRACK": "1",
    "AXOLOTL_TEE_STDOUT": "0",
    # No processes of its own: one that outlives a killed trainer would hold the job's lock.
    "AXOLOTL_DATASET_NUM_PROC": "0",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def load(config: TrainingConfig) -> tuple[Any, Any]:
    """Base model with a fresh adapter, and tokenizer, by Axolotl's loader."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        message = "backend Axolotl trains on one GPU, and this pod has several"
        raise refused(message, "ask for one GPU in spec.resources, or set backend: Unsloth or HuggingFace")
    settings = settings_of(config, scratch() / "nothing", scratch() / "nothing")
    import torch
    from axolotl.loaders.adapter import load_adapter
    from axolotl.train import setup_model_and_tokenizer
    from peft import PeftModel

    torch.manual_seed(config.training.seed)
    model, tokenizer, _, _ = with_adapter(setup_model_and_tokenizer, settings)
    if not isinstance(model, PeftModel):
        # For preferences Axolotl leaves this to TRL, which would begin with the base model whatever spec.initFrom says.
        model, _ = with_adapter(load_adapter, model, cfg=settings, adapter=settings.adapter)
    return model, tokenizer


def make_trainer(config: TrainingConfig, model: Any, tokenizer: Any, rows: Rows, test_rows: Rows, output: Path) -> Any:
    """Axolotl's trainer on the job's own dataset files, beside `output`, the directory of the checkpoints."""
    from trainers import check_held_out, logging_steps
    from transformers import ProgressCallback

    check_held_out(config, test_rows)
    settings = settings_of(config, output.parent / DATASET_NAME, output)
    settings.logging_steps = logging_steps(config, len(rows))
    data = read_dataset(config, settings)
    log("axolotl has read the dataset", rows=len(data.train_dataset), left_out=len(rows) - len(data.train_dataset))
    trainer = trainer_of(config, settings, model, tokenizer, data)
    # What was read stays mapped.
    shutil.rmtree(scratch())
    # Each attempt would begin with an evaluation more, which early stopping would count.
    trainer.args.eval_on_start = False
    trainer.remove_callback(ProgressCallback)
    if config.method == "SFT":
        from axolotl_tokens import TokenCount

        trainer.args.include_num_input_tokens_seen = "non_padding"
        trainer.add_callback(TokenCount(trainer))
    if config.training.early_stopping:
        from early_stopping import EarlyStoppingCallback

        trainer.add_callback(EarlyStoppingCallback(config.training.early_stopping))
    return trainer


def trainer_of(config: TrainingConfig, settings: Any, model: Any, tokenizer: Any, data: Any) -> Any:
    """What Axolotl and Transformers complain about before the training is about the optimizer, where one was chosen."""
    from axolotl.utils.trainer import setup_trainer
    from trainers import evaluates

    try:
        trainer = setup_trainer(
            cfg=settings,
            train_dataset=data.train_dataset,
            eval_dataset=data.eval_dataset if evaluates(config) else None,
            model=model,
            tokenizer=tokenizer,
            processor=None,
            total_num_steps=data.total_num_steps,
        )
        if config.training.optimizer:
            trainer.create_optimizer()
    except (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError) as error:
        if not config.training.optimizer:
            raise
        fact = str(error).strip().splitlines()
        message = f"Axolotl can't use the optimizer: {fact[0][:600] if fact else type(error).__name__}"
        raise refused(message, "correct spec.training.optimizer") from error
    return trainer


def read_dataset(config: TrainingConfig, settings: Any) -> Any:
    """Axolotl's `TrainDatasetMeta`; raises GivenUp where there is nothing to learn in it."""
    from axolotl.common.datasets import load_datasets, load_preference_datasets

    try:
        data = load_preference_datasets(cfg=settings) if config.method == "DPO" else load_datasets(cfg=settings)
    except ValueError as error:
        fact = str(error).strip().splitlines()
        message = f"Axolotl can't read the dataset: {fact[0] if fact else type(error).__name__}"
        remedy = "raise spec.training.maxSeqLength, choose a base model with a usual chat template, or another backend"
        raise GivenUp(FailureReason.DATASET_INVALID, message, remedy) from error
    rows = data.train_dataset
    if not len(rows) or (config.method == "SFT" and not any(set(row["labels"]) - {IGNORED} for row in rows)):
        message = f"no row has an answer within {config.training.max_seq_length} tokens"
        raise GivenUp(FailureReason.DATASET_INVALID, message, "raise spec.training.maxSeqLength or shorten the prompts")
    return data


def settings_of(config: TrainingConfig, dataset: Path, output: Path) -> Any:
    """Axolotl's own `DictDefault`, validated by its schema; raises GivenUp with what it refuses."""
    os.environ.update(ENVIRONMENT)
    from axolotl.cli.config import load_cfg

    file = scratch() / "axolotl.yaml"
    file.write_text(yaml.safe_dump(document(config, dataset, output), sort_keys=False, allow_unicode=True))
    try:
        return load_cfg(str(file))
    except ValueError as error:  # pydantic's errors are some
        fact = str(error).strip().splitlines()
        message = f"Axolotl refuses its config: {' '.join(fact[:3])[:600]}"
        raise refused(message, "change what spec.training or spec.lora asks for, or set backend: Unsloth") from error


def document(config: TrainingConfig, dataset: Path, output: Path) -> dict[str, object]:
    """The config that one could take away, and what here the machine and the trainer decide."""
    import torch
    from trainers import evaluates

    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported()
    # What `fetch` downloaded is a directory, of one commit.
    local = config.model_copy(update={"base_model_hub": None})
    rendered = axolotl(local, Places(config.base_model_path, str(dataset), str(output))).config
    # Its own rule for early stopping knows no minDelta.
    rendered.pop("early_stopping_patience", None)
    if not evaluates(config):
        rendered.pop("test_datasets", None)
    decided: dict[str, object] = {
        "bf16": bf16,
        "fp16": has_gpu and not bf16,
        "dataset_prepared_path": str(scratch() / "prepared"),
        "dataloader_num_workers": 0,
        "load_best_model_at_end": config.training.early_stopping is not None,
        # The best, the newest, and the one before it, which is there while the newest is not whole.
        "save_total_limit": 3 if config.training.early_stopping else 2,
    }
    if not has_gpu:
        decided |= dict.fromkeys(KERNELS, False)
    return rendered | decided


@cache
def scratch() -> Path:
    """Of this process alone: what a killed one left half done is never taken for whole."""
    import datasets

    directory = Path(tempfile.mkdtemp(prefix="axolotl-"))
    (directory / "prepared").mkdir()
    datasets.config.HF_DATASETS_CACHE = directory / "datasets"
    return directory
