"""The script as reviewed text, that it is Python whatever the job is called, and that it says what the job said."""

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.training import (
    EarlyStopping,
    JobIdentity,
    LoraConfig,
    StartingAdapter,
    TrainingConfig,
    TrainingParameters,
)
from finetune_operator.core.unsloth_script import OF_THE_MACHINE, Origin, unsloth_script
from tests.golden_files import assert_golden_text

HUB = Origin("Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca")
ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 4,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "cosine",
    "max_length": 2048,
    "seed": 42,
    "adam_beta2": 0.98,
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "output_dir": "/artifacts/finetune/plato/uid/checkpoints",
    "run_name": "plato-ethics",
    "report_to": "none",
    "use_cpu": False,
    "bf16": True,
    "fp16": False,
    "disable_tqdm": True,
}
EVALUATED = ARGUMENTS | {"eval_strategy": "steps", "eval_steps": 10, "load_best_model_at_end": True}


def config(method: str = "SFT", **changes: Any) -> TrainingConfig:
    told: dict[str, Any] = {
        "job": JobIdentity(namespace="finetune", name="plato-ethics", uid="uid"),
        "model": "plato",
        "method": method,
        "backend": "Unsloth",
        "base_model_name": "qwen3-0.6b",
        "dataset": DatasetConfig(source=RatingsSource()),
        "lora": LoraConfig(),
        "training": TrainingParameters(**changes.pop("training", {})),
    }
    return TrainingConfig(**(told | changes))


START = StartingAdapter(model_version="plato-v1", path="/artifacts/v1/adapter", digest="sha256:1")
STOPPING = {"early_stopping": EarlyStopping(patience=2, min_delta=0.01), "packing": True}


def test_a_plain_script_is_the_reviewed_one() -> None:
    script = unsloth_script(config(), HUB, ARGUMENTS, "finetune/plato-ethics")

    assert_golden_text("train_unsloth-sft.txt", script)


def test_a_script_with_everything_is_the_reviewed_one() -> None:
    everything = config(init_from=START, training=STOPPING | {"gradient_checkpointing": False})

    script = unsloth_script(everything, Origin("/models/tiny"), EVALUATED | {"packing": True}, "finetune/plato-ethics")

    assert_golden_text("train_unsloth-everything.txt", script)


def test_a_script_of_preferences_is_the_reviewed_one() -> None:
    preferences = config("DPO", training={"quantization": "8bit"})

    script = unsloth_script(preferences, HUB, ARGUMENTS | {"beta": 0.1}, "finetune/plato-ethics")

    assert_golden_text("train_unsloth-dpo.txt", script)


def literals(script: str) -> dict[str, Any]:
    """The script's constants."""
    found = {}
    for node in ast.parse(script).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_all_arguments_are_the_trainers_but_those_of_the_machine() -> None:
    told = literals(unsloth_script(config(), HUB, ARGUMENTS, "a/b"))

    assert told["ARGUMENTS"] == {name: value for name, value in ARGUMENTS.items() if name not in OF_THE_MACHINE}
    assert told["LOADING"] == {
        "max_seq_length": 2048,
        "load_in_4bit": True,
        "load_in_8bit": False,
        "revision": HUB.revision,
    }
    assert (told["ADAPTER"]["r"], told["ADAPTER"]["lora_alpha"], told["ADAPTER"]["random_state"]) == (16, 32, 42)


@pytest.mark.parametrize("method", ["SFT", "DPO"])
@given(job=st.text(), model=st.text(), value=st.text(), module=st.text())
def test_no_text_of_a_job_is_run(method: str, job: str, model: str, value: str, module: str) -> None:
    said = config(method, lora=LoraConfig(target_modules=(module,)))

    script = unsloth_script(said, Origin(model), {"optim": value}, job)

    plain = unsloth_script(config(method, lora=LoraConfig(target_modules=("m",))), Origin("o"), {"optim": "v"}, "j")
    told = literals(script)
    assert told["ARGUMENTS"] == {"optim": value}
    assert told["ADAPTER"]["target_modules"] == [module]
    assert [type(node) for node in ast.walk(ast.parse(script))] == [type(node) for node in ast.walk(ast.parse(plain))]
