"""The training as one Python script that runs without the operator: Unsloth and TRL, with the job's own numbers."""

import pprint
from collections.abc import Mapping
from string import Template
from typing import NamedTuple

from finetune_operator.contract.places import DATASET_NAME
from finetune_operator.contract.training import TrainingConfig

LINE_WIDTH = 110
Scalar = str | int | float | bool | None | list[object] | dict[str, object]

# What follows from the machine or the place, and hence is code in the script and no number of the job.
OF_THE_MACHINE = ("use_cpu", "bf16", "fp16", "output_dir", "run_name", "report_to", "disable_tqdm")


class Origin(NamedTuple):
    """Where the base model is: an id of the hub with a commit, or a directory."""

    model: str
    revision: str | None = None


def unsloth_script(config: TrainingConfig, origin: Origin, arguments: Mapping[str, Scalar], job: str) -> str:
    """The script; `arguments` are those that the trainer gave to TRL's configuration.

    Every text of the job gets into it as a Python literal.
    """
    training, lora = config.training, config.lora
    is_dpo = config.method == "DPO"
    kept = {name: value for name, value in sorted(arguments.items()) if name not in OF_THE_MACHINE}
    evaluates = "eval_strategy" in kept
    loading: dict[str, Scalar] = {
        "max_seq_length": training.max_seq_length,
        "load_in_4bit": training.quantization == "4bit",
        "load_in_8bit": training.quantization == "8bit",
    }
    if origin.revision:
        loading["revision"] = origin.revision
    adapter: dict[str, Scalar] = {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "use_gradient_checkpointing": "unsloth" if training.gradient_checkpointing else False,
        "random_state": training.seed,
    }
    patience = training.early_stopping
    return Template(SCRIPT).substitute(
        job=_comment(job),
        model=repr(origin.model),
        loading=_dictionary(loading),
        adapter=_dictionary(adapter),
        arguments=_dictionary(kept),
        configuration="DPOConfig" if is_dpo else "SFTConfig",
        trainer="DPOTrainer" if is_dpo else "SFTTrainer",
        dataset=DATASET_NAME,
        imports=(INITIAL_IMPORTS if config.init_from else "") + (STOPPING_IMPORTS if patience else ""),
        initial=INITIAL if config.init_from else "",
        initial_argument=INITIAL_ARGUMENT if config.init_from else "",
        rows=PAIRS if is_dpo else CONVERSATIONS,
        packing=PACKING if training.packing else "",
        evaluation=', eval_dataset=dataset_of(arguments.data / "test.jsonl", tokenizer)' if evaluates else "",
        stopping_class=(
            Template(STOPPING_CLASS).substitute(patience=patience.patience, min_delta=patience.min_delta)
            if patience
            else ""
        ),
        stopping="    trainer.add_callback(EarlyStopping())\n" if patience else "",
    )


def _dictionary(values: Mapping[str, Scalar]) -> str:
    """One entry a line, as it stands in a formatted source."""
    lines = (
        f"    {name!r}: {pprint.pformat(value, width=LINE_WIDTH, compact=True)},\n" for name, value in values.items()
    )
    return "{\n" + "".join(lines) + "}"


def _comment(text: str) -> str:
    """Within a docstring: one line without what would end it."""
    printable = "".join(each for each in " ".join(text.split()) if each.isprintable())
    return printable.replace("\\", "/").replace('"', "'")


INITIAL_IMPORTS = """from peft import set_peft_model_state_dict
from safetensors.torch import load_file
"""
STOPPING_IMPORTS = "from transformers import TrainerCallback\n"
INITIAL_ARGUMENT = """    parser.add_argument("--initial-adapter", type=Path, default=HERE / "initial-adapter")
"""
INITIAL = """
    loaded = set_peft_model_state_dict(model, load_file(arguments.initial_adapter / "adapter_model.safetensors"))
    assert not loaded.unexpected_keys, loaded.unexpected_keys[:3]
"""
PACKING = """
    # Without a GPU Unsloth turns it off.
    configuration.packing = True
"""
PAIRS = """def dataset_of(path, tokenizer):
    return Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in read(path)])
"""
CONVERSATIONS = '''def render(tokenizer, messages, add_generation_prompt=False):
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, return_dict=True, tokenize=True
    )
    return list(encoded["input_ids"])


def common(first, second):
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return length


def dataset_of(path, tokenizer):
    """Only what the assistant says is learned: all other labels are -100."""
    limit, rows = ARGUMENTS["max_length"], []
    for messages in (row["messages"] for row in read(path)):
        ids = render(tokenizer, messages)
        labels = [-100] * len(ids)
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and index > 0:
                start = common(ids, render(tokenizer, messages[:index], add_generation_prompt=True))
                end = common(ids, render(tokenizer, messages[: index + 1]))
                labels[start:end] = ids[start:end]
        if any(label != -100 for label in labels[:limit]):
            rows.append({"input_ids": ids[:limit], "labels": labels[:limit]})
    return Dataset.from_list(rows)
'''
STOPPING_CLASS = '''

class EarlyStopping(TrainerCallback):
    """End once $patience evaluations in a row were not better than the best before them by more than $min_delta."""

    def on_evaluate(self, args, state, control, **kwargs):
        best, waited = float("inf"), 0
        for loss in (entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry):
            best, waited = (loss, 0) if loss < best - $min_delta else (best, waited + 1)
            control.should_training_stop |= waited >= $patience
'''
SCRIPT = '''"""Train the adapter of $job again, without the operator.

    pip install unsloth
    python train_unsloth.py

The rows are read from $dataset/ beside this script; the same machine makes the same adapter.
"""

import argparse
import json
from pathlib import Path

# Before TRL and Transformers, which it patches.
from unsloth import FastLanguageModel

import torch
from datasets import Dataset
${imports}from trl import $configuration, $trainer

HERE = Path(__file__).resolve().parent
LOADING = $loading
ADAPTER = $adapter
ARGUMENTS = $arguments


def read(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\\n") if line.strip()]


$rows$stopping_class

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-model", default=$model, help="directory, or id at the hub")
    parser.add_argument("--data", type=Path, default=HERE / "$dataset", help="directory with train.jsonl")
    parser.add_argument("--output", type=Path, default=HERE / "output", help="directory for checkpoints and adapter")
$initial_argument    arguments = parser.parse_args()

    # Without a GPU in float32: bfloat16 is emulated on most CPUs, and slower.
    has_gpu = torch.cuda.is_available()
    bf16 = has_gpu and torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if bf16 else None if has_gpu else torch.float32
    model, tokenizer = FastLanguageModel.from_pretrained(model_name=arguments.base_model, dtype=dtype, **LOADING)
    model = FastLanguageModel.get_peft_model(model, **ADAPTER)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
$initial
    configuration = $configuration(
        output_dir=str(arguments.output),
        use_cpu=not has_gpu,
        bf16=bf16,
        fp16=has_gpu and not bf16,
        report_to="none",
        **ARGUMENTS,
    )
$packing    rows = dataset_of(arguments.data / "train.jsonl", tokenizer)
    trainer = $trainer(model=model, args=configuration, processing_class=tokenizer, train_dataset=rows$evaluation)
$stopping    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps({"steps": trainer.state.global_step, "final_loss": losses[-1] if losses else None}))
    trainer.model.save_pretrained(arguments.output / "adapter", selected_adapters=[trainer.model.active_adapter])


if __name__ == "__main__":
    main()
'''
