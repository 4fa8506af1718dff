"""The preparation estimates the memory of a training, and refuses what can't fit before a GPU is taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.store.prepare import Surroundings, main

LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


def prepared(tmp_path: Path, model_config: dict[str, Any], gpu_type: str | None, quantization: str) -> tuple[int, str]:
    """The container's exit code and termination message."""
    for name in ("models/llama", "datasets", "artifacts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/llama/config.json").write_text(json.dumps(model_config))
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {n} " * 3},
                {"role": "assistant", "content": "answer " * 9},
            ]
        }
        for n in range(20)
    ]
    (tmp_path / "datasets/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato", uid="uid"),
        model="plato",
        method="SFT",
        backend="Unsloth",
        base_model_name="llama",
        base_model_path="llama",
        dataset=DatasetConfig(source=VolumeSource(path="rows.jsonl"), format="ChatML"),
        lora=LoraConfig(),
        training=TrainingParameters.model_validate({"quantization": quantization}),
        gpu_type=gpu_type,
    )
    (tmp_path / "config.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
    surroundings = Surroundings(
        tmp_path / "models", tmp_path / "datasets", tmp_path / "artifacts", tmp_path / "termination-log"
    )
    code = main(tmp_path / "config.json", surroundings, {})
    return code, (tmp_path / "termination-log").read_text()


def test_the_estimate_is_in_the_report(tmp_path: Path) -> None:
    code, message = prepared(tmp_path, LLAMA_70B, "NVIDIA-H100-80GB-HBM3", "4bit")
    assert code == 0, message
    preflight = DatasetReport.model_validate_json(message).preflight
    assert preflight is not None
    assert (preflight.parameters_billion, preflight.gpu_memory_gib) == (70.55, 80)
    assert 40 < preflight.memory_gib < 80


def test_what_can_not_fit_is_refused_before_the_dataset_is_made(tmp_path: Path) -> None:
    code, message = prepared(tmp_path, LLAMA_70B, "NVIDIA-A100-SXM4-40GB", "none")
    assert code == EXIT_CODES[FailureReason.OUT_OF_MEMORY]
    failure = Failure.model_validate_json(message)
    assert failure.reason is FailureReason.OUT_OF_MEMORY
    assert "NVIDIA-A100-SXM4-40GB has 40 GiB" in failure.message
    assert "4bit" in failure.remedy
    assert list((tmp_path / "artifacts").rglob("*.jsonl")) == []


@pytest.mark.parametrize("model", [{}, {"model_type": "mamba"}, LLAMA_70B | {"model_type": "mixtral"}])
def test_a_model_that_is_not_understood_is_trained_without_an_estimate(tmp_path: Path, model: dict[str, Any]) -> None:
    code, message = prepared(tmp_path, model, "NVIDIA-L4", "none")
    assert code == 0, message
    assert DatasetReport.model_validate_json(message).preflight is None
