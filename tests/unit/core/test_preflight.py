"""The memory that a training needs, against sizes that are published, and when it is refused."""

import json
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, VolumeSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.preflight import TokenLengths
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.core.accelerators import gpu, gpu_memory_gib
from finetune_operator.core.model_shape import ModelShape, model_shape
from finetune_operator.core.preflight import GIB, Rows, preflight, refusal

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
}  # fmt: skip
MISTRAL_7B = LLAMA_8B | {"model_type": "mistral", "vocab_size": 32000}
QWEN3_0_6B = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
GEMMA_2B = {
    "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "head_dim": 256,
    "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 256000,
}  # fmt: skip
# As their model cards and files on the hub give them.
PARAMETERS: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (LLAMA_8B, 8_030_261_248),
    "Llama-3.1-70B": (LLAMA_70B, 70_553_706_496),
    "Mistral-7B-v0.3 with the vocabulary of v0.1": (MISTRAL_7B, 7_241_732_096),
    "Qwen3-0.6B, but for its norms of queries and keys": (QWEN3_0_6B, 596_049_920 - 28 * 2 * 128),
    "Gemma-2B, whose head is its embedding without saying so": (GEMMA_2B, 2_506_172_416),
}


def shape_of(config: dict[str, Any]) -> ModelShape:
    shape = model_shape(json.dumps(config))
    assert shape is not None
    return shape


def training(
    gpu_type: str | None = None, r: int = 16, method: str = "SFT", backend: str = "Unsloth", **parameters: Any
) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "job": JobIdentity(namespace="finetune", name="plato", uid="uid"),
            "model": "plato",
            "method": method,
            "backend": backend,
            "base_model_name": "llama",
            "base_model_path": "/models/llama",
            "dataset": DatasetConfig(source=VolumeSource(path="rows.jsonl")),
            "lora": LoraConfig(r=r),
            "training": TrainingParameters(**parameters),
            "gpu_type": gpu_type,
        }
    )


@pytest.mark.parametrize(("config", "published"), PARAMETERS.values(), ids=PARAMETERS.keys())
def test_the_number_of_parameters_is_that_of_the_real_model(config: dict[str, Any], published: int) -> None:
    shape = shape_of(config)
    assert shape.linear_parameters + shape.other_parameters == published


UNKNOWN = {
    "a mixture of experts": LLAMA_8B | {"model_type": "mixtral", "num_local_experts": 8},
    "another MLP": LLAMA_8B | {"model_type": "gpt_neox"},
    "several models in one": {"model_type": "gemma3", "text_config": LLAMA_8B},
    "weights that are quantized already": LLAMA_8B | {"quantization_config": {"load_in_4bit": True}},
    "a number that is none": LLAMA_8B | {"num_hidden_layers": 0},
}


@pytest.mark.parametrize("config", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_understood_is_not_estimated(config: dict[str, Any]) -> None:
    assert model_shape(json.dumps(config)) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hidden_size": "x"}'])
def test_a_damaged_file_is_not_estimated(text: str) -> None:
    assert model_shape(text) is None


def memory_gib(shape: ModelShape, config: TrainingConfig, rows: Rows | None = None) -> float:
    found = preflight(shape, config, rows).memory_gib
    assert found is not None
    return found


def least_gib(shape: ModelShape, config: TrainingConfig) -> float:
    found = preflight(shape, config).least_memory_gib
    assert found is not None
    return found


def test_weights_by_quantization() -> None:
    """Llama-3.1-8B: 15.0 GiB in bfloat16; 4 bit leaves a quarter of the blocks, and all of embedding and head."""
    shape = shape_of(LLAMA_8B)
    bare = {name: least_gib(shape, training(r=1, quantization=name)) for name in ("none", "8bit", "4bit")}
    assert {name: round(size, 1) for name, size in bare.items()} == {"none": 15.0, "8bit": 8.5, "4bit": 5.3}


def test_a_65b_model_is_trained_on_a_gpu_of_48_gb() -> None:
    """What QLoRA's abstract claims, here at batch 1 and 512 tokens, and only in 4 bit."""
    llama_65b = LLAMA_70B | {"intermediate_size": 22016, "num_key_value_heads": 64, "vocab_size": 32000}
    settings: dict[str, Any] = {"r": 16, "backend": "HuggingFace", "batch_size": 1, "max_seq_length": 512}
    configs = {name: training(quantization=name, **settings) for name in ("4bit", "8bit")}
    found = {name: memory_gib(shape_of(llama_65b), config) * GIB for name, config in configs.items()}
    assert 32e9 < found["4bit"] < 48e9 < found["8bit"]


MORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a larger batch": ({"batch_size": 1}, {"batch_size": 8}),
    "longer examples": ({"max_seq_length": 512}, {"max_seq_length": 4096}),
    "a higher rank": ({"r": 8}, {"r": 256}),
    "two answers a prompt": ({"method": "SFT"}, {"method": "DPO"}),
    "no gradient checkpointing": ({"gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    "less quantization": ({"quantization": "4bit"}, {"quantization": "8bit"}),
    "whole logits": ({"backend": "Unsloth"}, {"backend": "HuggingFace"}),
}


@pytest.mark.parametrize(("less", "more"), MORE.values(), ids=MORE.keys())
def test_what_needs_more_is_estimated_at_more(less: dict[str, Any], more: dict[str, Any]) -> None:
    shape = shape_of(LLAMA_8B)
    assert memory_gib(shape, training(**less)) < memory_gib(shape, training(**more))


TYPES = {
    "NVIDIA-H100-80GB-HBM3": 80,
    "NVIDIA-A100-SXM4-40GB": 40,
    "Tesla-V100-SXM2-16GB": 16,
    "NVIDIA-L4": 24,
    "NVIDIA-L40S": 48,
    "NVIDIA-A10G": 24,
    "NVIDIA-GeForce-RTX-4090": 24,
    "NVIDIA-H100-PCIe": 80,
    "NVIDIA-H100-NVL": 94,
    "NVIDIA-A100-SXM4": None,
    "NVIDIA-H200": 141,
    "NVIDIA-Future-1000": None,
    None: None,
}


@pytest.mark.parametrize(("gpu_type", "memory"), TYPES.items())
def test_the_memory_of_a_type(gpu_type: str | None, memory: int | None) -> None:
    assert gpu_memory_gib(gpu_type) == memory


@pytest.mark.parametrize(
    ("model", "gpu_type", "quantization"),
    [
        (LLAMA_70B, "NVIDIA-A100-SXM4-40GB", "8bit"),
        (LLAMA_70B, "NVIDIA-H100-80GB-HBM3", "none"),
        (LLAMA_70B, "NVIDIA-L4", "4bit"),
        (LLAMA_8B, "NVIDIA-A100-SXM4-40GB", "never"),
    ],
)
def test_what_can_not_fit_is_refused_with_a_remedy(model: dict[str, Any], gpu_type: str, quantization: str) -> None:
    if quantization == "never":
        config = training(gpu_type, quantization="none", batch_size=4096)
        assert refusal(preflight(shape_of(model), config), config) is None
        return
    config = training(gpu_type, quantization=quantization)
    failure = refusal(preflight(shape_of(model), config), config)
    assert failure is not None
    assert failure.reason is FailureReason.OUT_OF_MEMORY
    assert gpu_type in failure.message
    assert "70.55 billion" in failure.message
    assert ("quantization 4bit instead" in failure.remedy) == (quantization != "4bit")


def test_a_type_that_is_not_known_refuses_nothing() -> None:
    config = training("NVIDIA-Future-1000", quantization="none")
    assert refusal(preflight(shape_of(LLAMA_70B), config), config) is None


SPEEDS = {
    "Tesla-V100-SXM2-32GB": 125,
    "NVIDIA-A100-80GB-PCIe": 312,
    "NVIDIA-H100-80GB-HBM3": 989,
    "NVIDIA-H100-PCIe": 756,
    "NVIDIA-L40S": 362,
    "NVIDIA-L4": 121,
    "NVIDIA-A10": 125,
    "NVIDIA-A10G": 70,
    "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb": None,
    "NVIDIA-Future-1000": None,
    None: None,
}


@pytest.mark.parametrize(("gpu_type", "tflops"), SPEEDS.items())
def test_the_speed_of_a_type(gpu_type: str | None, tflops: float | None) -> None:
    """Dense, as the data sheets have it; a slice has a part of it that its name does not tell."""
    found = gpu(gpu_type)
    assert (found.peak_tflops if found else None) == tflops


def lengths(**changes: Any) -> TokenLengths:
    """Of 100 rows, all looked at."""
    usual: dict[str, Any] = {
        "method": "Tokenizer", "sampled_rows": 100, "p50": 200, "p95": 400, "max": 500,
        "over_length": 0, "unlearnable": 0, "mean": 210.0, "padded_mean": 320.0,
    }  # fmt: skip
    return TokenLengths.model_validate(usual | changes)


def test_known_lengths_bound_the_memory() -> None:
    """No batch is longer than the longest row; a sample may have missed it, and packing fills every sequence."""
    shape, config = shape_of(LLAMA_8B), training(max_seq_length=4096)
    whole = memory_gib(shape, config)
    assert memory_gib(shape, config, Rows(100, lengths())) < whole
    assert memory_gib(shape, config, Rows(101, lengths())) == whole
    assert memory_gib(shape, config, Rows(100, lengths(method="Characters"))) == whole
    packed = training(max_seq_length=4096, packing=True)
    assert memory_gib(shape, packed, Rows(100, lengths())) == memory_gib(shape, packed)


HOPELESS = {"over_length": 100, "unlearnable": 100, "p50": 3000, "max": 4000}
LEARNED: dict[str, tuple[TokenLengths, int, str, bool]] = {
    "every row was looked at": (lengths(**HOPELESS), 100, "SFT", True),
    "one has an answer": (lengths(**HOPELESS | {"unlearnable": 99}), 100, "SFT", False),
    "some were not looked at": (lengths(**HOPELESS), 101, "SFT", False),
    "only characters were counted": (lengths(**HOPELESS, method="Characters"), 100, "SFT", False),
    "pairs, which TRL cuts by rules of its own": (lengths(**HOPELESS), 100, "DPO", False),
}


@pytest.mark.parametrize(("found", "rows", "method", "refused"), LEARNED.values(), ids=LEARNED.keys())
def test_rows_without_an_answer_to_learn_are_refused_if_that_is_certain(
    found: TokenLengths, rows: int, method: str, refused: bool
) -> None:
    config = training(method=method)
    failure = refusal(preflight(None, config, Rows(rows, found)), config, Rows(rows, found))
    assert (failure is not None) == refused
    if failure:
        assert failure.reason is FailureReason.DATASET_INVALID
        assert "no row has an answer within 2048 tokens" in failure.message
        assert "maxSeqLength" in failure.remedy


WARNINGS: dict[str, tuple[TrainingConfig, Rows, list[str]]] = {
    "all is well": (training("NVIDIA-L4"), Rows(100, lengths()), []),
    "one row of a thousand is cut": (training(), Rows(1000, lengths(sampled_rows=1000, over_length=1)), []),
    "many rows are cut": (
        training(), Rows(100, lengths(over_length=12, unlearnable=3, max=9000)),
        ["12 % of the rows are longer than training.maxSeqLength 2048 and are cut (12 of 100 looked at, 3 of them "
         "before their answer; the longest has 9000 tokens): raise maxSeqLength, or leave them out by "
         "dataset.maxCharacters, in a new job"],
    ),
    "the tokenizer is of no use": (
        training(), Rows(100, lengths(method="Characters"), "it has no chat template"),
        ["the rows' lengths in tokens are estimated from their characters, since it has no chat template: if the "
         "training fails to tokenize as well, correct the base model's files"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "rows", "expected"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_speaks_against_a_training_is_told_with_a_remedy(
    config: TrainingConfig, rows: Rows, expected: list[str]
) -> None:
    assert list(preflight(shape_of(LLAMA_8B), config, rows).warnings) == expected


def test_an_estimate_beyond_the_gpu_is_told_and_not_refused() -> None:
    config = training("Tesla-V100-SXM2-16GB", quantization="none")
    found = preflight(shape_of(LLAMA_8B), config)
    assert found.least_memory_gib is not None
    assert found.memory_gib is not None
    assert found.least_memory_gib < 16 < found.memory_gib
    assert refusal(found, config) is None
    assert found.warnings[0].startswith(f"estimated at {found.memory_gib:g} GiB, and Tesla-V100-SXM2-16GB has 16 GiB")
    assert "training.batchSize" in found.warnings[0]
