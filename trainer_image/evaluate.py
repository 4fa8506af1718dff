"""Measure a published adapter on the held-out rows: the losses, and what `spec.evaluation` asks for.

    python evaluate.py --config config.json --artifacts /artifacts --attempt NAME --output measured.json

A process of its own, started by measuring.py: without Unsloth and its patches, on the base model and the adapter's
files as they lie on the volumes, as an engine takes them.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from child import subordinate
from job_log import keep_log
from measuring import Measured, write_measured
from memory import within_memory

from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="TrainingConfig as JSON, its base model fetched")
    parser.add_argument("--artifacts", type=Path, required=True, help="root of the artifacts volume")
    parser.add_argument("--attempt", required=True, help="by which the log names it")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    return parser.parse_args()


def main() -> None:
    subordinate()
    arguments = parse_arguments()
    config = TrainingConfig.model_validate_json(arguments.config.read_bytes())
    paths = JobPaths.of(config, str(arguments.artifacts))
    keep_log(Path(paths.log), arguments.attempt)
    import torch  # noqa: F401 - by which `within_memory` knows of a GPU

    with within_memory():
        measure(config, paths, arguments.output)


def measure(config: TrainingConfig, paths: JobPaths, output: Path) -> None:
    """The losses first: they are there if answering ends badly."""
    from evaluation import evaluate, failed
    from held_out import HeldOut
    from rows import read_rows

    try:
        rows = read_rows(Path(paths.test_rows), config.method)
        model, tokenizer = load_published(config, Path(paths.adapter))
        losses = HeldOut(config, tokenizer, rows).losses_if_possible(model)
    except Exception as error:  # noqa: BLE001 - whatever it is, words say more than an exit code
        write_measured(Measured(evaluation=failed(error)), output)
        return
    measured = Measured(base_test_loss=losses.base, test_loss=losses.fine_tuned, loss_error=losses.error)
    write_measured(measured, output)
    if config.evaluation:
        report = evaluate(config, config.evaluation, model, tokenizer, rows)
        write_measured(measured.model_copy(update={"evaluation": report}), output)


def load_published(config: TrainingConfig, adapter: Path) -> tuple[Any, Any]:
    """The base model, quantized as for the training, with the adapter on it; and the base model's tokenizer."""
    import torch
    from peft import PeftModel
    from peft_models import quantization
    from transformers import AutoModelForCausalLM, AutoTokenizer

    has_gpu = torch.cuda.is_available()
    dtype = torch.float32 if not has_gpu else torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    base = AutoModelForCausalLM.from_pretrained(
        config.base_model_path,
        dtype=dtype,
        quantization_config=quantization(config, dtype),
        device_map={"": 0 if has_gpu else "cpu"},
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(config.base_model_path, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return PeftModel.from_pretrained(base, adapter).eval(), tokenizer


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # Everything is on the disk; what torch tears down takes a while.
    os._exit(0)
