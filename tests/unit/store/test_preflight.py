"""The preparation estimates the memory of a training, and refuses what can't fit before a GPU is taken."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.contract.preflight import Preflight
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.store.prepare import Surroundings, as_short_report, main
from tests.unit.store.small_models import CHAT_ML, TINY_LLAMA, conversation, write_model

LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip


ROWS = [conversation(f"question {n} " * 3, "answer " * 9) for n in range(20)]


def prepared(
    tmp_path: Path,
    model_config: dict[str, Any],
    gpu_type: str | None = None,
    quantization: str = "none",
    rows: list[dict[str, Any]] = ROWS,
    template: str | None = None,
    **parameters: Any,
) -> tuple[int, str]:
    """The container's exit code and termination message; without a template the tokenizer is of no use."""
    for name in ("datasets", "artifacts"):
        (tmp_path / name).mkdir(parents=True)
    write_model(tmp_path / "models/llama", template, model_config, **({} if template else {"tokenizer": None}))
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
        training=TrainingParameters.model_validate({"quantization": quantization} | parameters),
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
    assert preflight.memory_gib is not None
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
def test_a_model_that_is_not_understood_is_trained_without_sizes(tmp_path: Path, model: dict[str, Any]) -> None:
    code, message = prepared(tmp_path, model, "NVIDIA-L4", template=CHAT_ML)
    assert code == 0, message
    preflight = reported(message)
    assert (preflight.parameters_billion, preflight.memory_gib, preflight.work) == (None, None, None)
    assert preflight.tokens is not None
    assert preflight.tokens.method == "Tokenizer"


def test_lengths_and_work_are_in_the_report(tmp_path: Path) -> None:
    code, message = prepared(tmp_path, TINY_LLAMA, template=CHAT_ML, epochs=2, batch_size=4)
    assert code == 0, message
    preflight = reported(message)
    assert preflight.tokens is not None
    assert preflight.tokens.sampled_rows == DatasetReport.model_validate_json(message).rows == 18
    assert preflight.work is not None
    assert preflight.work.steps == 2 * math.ceil(18 / 4)
    assert preflight.work.tokens == pytest.approx(2 * 18 * preflight.tokens.mean, abs=1)
    assert preflight.warnings == ()


def test_rows_that_are_cut_are_told(tmp_path: Path) -> None:
    code, message = prepared(tmp_path, TINY_LLAMA, template=CHAT_ML, max_seq_length=80)
    assert code == 0, message
    assert reported(message).warnings[0].startswith("100 % of the rows are longer than training.maxSeqLength 80")


def test_rows_without_an_answer_within_the_length_are_refused_before_a_gpu_is_taken(tmp_path: Path) -> None:
    code, message = prepared(tmp_path, TINY_LLAMA, template=CHAT_ML, max_seq_length=20)
    assert code == EXIT_CODES[FailureReason.DATASET_INVALID]
    failure = Failure.model_validate_json(message)
    assert "no row has an answer within 20 tokens" in failure.message
    assert "maxSeqLength" in failure.remedy
    assert list((tmp_path / "artifacts").rglob("*.jsonl")) == []


HOSTILE = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(("template", "expected"), [(None, "has no tokenizer.json"), (HOSTILE, "took longer than 1 s")])
def test_a_tokenizer_that_is_of_no_use_ends_no_training(
    tmp_path: Path, template: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.store.preflight.WALL_SECONDS_MAX", 1.0)
    code, message = prepared(tmp_path, TINY_LLAMA, template=template, max_seq_length=8)
    assert code == 0, message
    preflight = reported(message)
    assert preflight.tokens is not None
    assert preflight.tokens.method == "Characters"
    assert expected in preflight.warnings[0]


def test_a_report_that_kubernetes_would_cut_leaves_out_details(tmp_path: Path) -> None:
    """Each of the first dropped rows is named, which alone may be too much."""
    rows = [conversation("q" * length, "a" * 30) for length in range(5)] * 2 + ROWS
    _, message = prepared(tmp_path, TINY_LLAMA, rows=rows, template=CHAT_ML)
    report = DatasetReport.model_validate_json(message)
    assert report.dropped_rows
    long = report.model_copy(update={"dropped_rows": {f"{n}": ("x" * 24,) * 5 for n in range(40)}})
    short = as_short_report(long)
    assert len(short.encode()) <= TERMINATION_MESSAGE_MAX_BYTES
    assert DatasetReport.model_validate_json(short) == long.model_copy(update={"dropped_rows": {}, "warnings": ()})


def test_the_shape_is_reported_for_later_trainings(tmp_path: Path) -> None:
    _, message = prepared(tmp_path, TINY_LLAMA)
    shape = reported(message).shape
    assert shape is not None
    assert shape.model_dump(include=set(TINY_LLAMA), exclude_none=True).items() <= TINY_LLAMA.items()
    assert shape.hidden_size == TINY_LLAMA["hidden_size"]


def reported(message: str) -> Preflight:
    found = DatasetReport.model_validate_json(message).preflight
    assert found is not None
    return found
