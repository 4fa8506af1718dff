"""How long a training takes, against times that were published and one that was measured here."""

from typing import Any

import pytest

from finetune_operator.contract.preflight import TokenLengths, Work
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.accelerators import CPU_CORE_TFLOPS, gpu
from finetune_operator.core.model_shape import ModelShape
from finetune_operator.core.training_time import Device, cpu_device, gpu_device, seconds_of, steps_of, work_of
from tests.unit.core.test_preflight import LLAMA_8B, LLAMA_70B, shape_of, training

# Of the models' own configs; Qwen 1 has Llama's shape but for its biases.
QWEN: dict[str, dict[str, Any]] = {
    "1.8B": {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16},
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "14B": {"hidden_size": 5120, "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 40},
    "72B": {"hidden_size": 8192, "intermediate_size": 24576, "num_hidden_layers": 80, "num_attention_heads": 64},
}
SEQUENCE_LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
# Seconds of an optimizer step of 8 batches of 1 on one A100-SXM4-80GB, with gradient checkpointing:
# https://github.com/QwenLM/Qwen, README.md, "Profiling of Memory and Speed".
PUBLISHED: dict[tuple[str, str], tuple[float, ...]] = {
    ("1.8B", "none"): (1.0, 1.0, 1.1, 1.7, 3.3, 6.8),
    ("1.8B", "4bit"): (1.4, 1.4, 1.4, 2.0, 3.4, 6.5),
    ("7B", "none"): (1.2, 1.5, 2.8, 5.2, 10.1, 21.3),
    ("7B", "4bit"): (3.0, 3.0, 3.5, 7.0, 11.6, 22.3),
    ("14B", "none"): (1.6, 2.4, 4.4, 8.4, 17.0, 36.0),
    ("14B", "4bit"): (5.3, 6.3, 8.2, 11.8, 20.1, 38.3),
    ("72B", "4bit"): (27.4, 31.5, 41.4, 59.5, 97.7, 179.8),
}
WIDEST = 12.0
"""Of the two ends of a range: a short batch of a quantized model has the widest."""


def equally_long(tokens: int, rows: int) -> TokenLengths:
    return TokenLengths(
        method="Tokenizer", sampled_rows=rows, p50=tokens, p95=tokens, max=tokens, over_length=0, unlearnable=0,
        mean=tokens, padded_mean=tokens,
    )  # fmt: skip


def estimated(shape: ModelShape, config: TrainingConfig, rows: int, tokens: int, device: Device) -> tuple[float, float]:
    return seconds_of(work_of(shape, config, rows, equally_long(tokens, rows)), device)


def on(gpu_type: str) -> Device:
    found = gpu(gpu_type)
    assert found is not None
    return gpu_device(found.peak_tflops)


@pytest.mark.parametrize(("model", "quantization"), PUBLISHED)
def test_a_published_step_takes_as_long_as_estimated(model: str, quantization: str) -> None:
    shape = shape_of(QWEN[model] | {"model_type": "llama", "vocab_size": 151936})
    for tokens, seconds in zip(SEQUENCE_LENGTHS, PUBLISHED[model, quantization], strict=True):
        config = training(
            r=64, batch_size=1, gradient_accumulation_steps=8, epochs=1, max_seq_length=tokens,
            quantization=quantization,
        )  # fmt: skip
        least, most = estimated(shape, config, 8, tokens, on("NVIDIA-A100-SXM4-80GB"))
        assert least <= seconds <= most, (tokens, least, seconds, most)
        assert most / least < WIDEST


def test_guanaco_65b_took_a_day() -> None:
    """QLoRA, 2305.14314, table 9 and abstract: 1875 steps of 16 rows of at most 512 tokens, 24 hours on one GPU of
    48 GB; here an A6000."""
    llama_65b = LLAMA_70B | {"intermediate_size": 22016, "num_key_value_heads": 64, "vocab_size": 32000}
    config = training(r=64, batch_size=1, gradient_accumulation_steps=16, max_steps=1875, max_seq_length=512)
    least, most = estimated(shape_of(llama_65b), config, 9846, 512, on("NVIDIA-RTX-A6000"))
    assert least < 24 * 3600 < most


def test_a_step_of_the_demo() -> None:
    """README, FineTuneJob 2: 13.9 to 24.5 of 30 epochs of 77 rows in 9 s, on 2 cores."""
    tiny = {
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4,
        "num_attention_heads": 4, "vocab_size": 1024, "tie_word_embeddings": True,
    }  # fmt: skip
    config = training(r=16, batch_size=8, epochs=1, quantization="none", gradient_checkpointing=False)
    least, most = estimated(shape_of(tiny), config, 77, 60, cpu_device(2 * CPU_CORE_TFLOPS))
    assert least < 9 / (24.5 - 10.0) < most


STEPS: dict[str, tuple[dict[str, Any], int, int, float]] = {
    "as many as there are batches": ({"epochs": 1, "batch_size": 4}, 100, 25, 1),
    "the last batch is short": ({"epochs": 2, "batch_size": 8}, 77, 20, 2),
    "the last accumulation is short": ({"epochs": 1, "batch_size": 4, "gradient_accumulation_steps": 8}, 100, 4, 1),
    "half an epoch": ({"epochs": 0.5, "batch_size": 4}, 100, 13, 0.52),
    "an end by steps": ({"epochs": 3, "max_steps": 5, "batch_size": 4}, 100, 5, 0.2),
    "fewer rows than a batch": ({"epochs": 3, "batch_size": 64}, 10, 3, 3),
}


@pytest.mark.parametrize(("parameters", "rows", "steps", "epochs"), STEPS.values(), ids=STEPS.keys())
def test_steps_are_counted_as_transformers_does(
    parameters: dict[str, Any], rows: int, steps: int, epochs: float
) -> None:
    found = steps_of(rows, training(**parameters))
    assert (found.steps, round(found.epochs, 2)) == (steps, epochs)


def test_several_processes_share_the_batches() -> None:
    shape, rows, config = shape_of(LLAMA_8B), 1024, training(batch_size=4, epochs=1)
    alone = work_of(shape, config, rows, equally_long(100, rows))
    shared = work_of(shape, config.model_copy(update={"processes": 4}), rows, equally_long(100, rows))
    assert (alone.steps, shared.steps, shared.processes) == (256, 64, 4)
    assert (shared.tokens, shared.flops * 4) == (alone.tokens, alone.flops)


def test_six_operations_a_parameter_and_token() -> None:
    """Forward, backward without the weights' own gradients, and forward once more: 6 N; 4 N without checkpointing."""
    shape, rows = shape_of(LLAMA_8B), 100
    parameters = shape.linear_parameters + shape.vocab_size * shape.hidden_size
    tokens = 100 * rows

    def flops(**parameters: Any) -> float:
        config = training(r=1, epochs=1, **parameters)
        return work_of(shape, config, rows, equally_long(100, rows)).flops / tokens

    assert flops(gradient_checkpointing=False) == pytest.approx(4 * parameters, rel=0.01)
    assert flops() == pytest.approx(6 * parameters, rel=0.03)
    assert flops(method="DPO") == pytest.approx(8 * parameters, rel=0.03)


def test_packing_saves_the_padding() -> None:
    shape = shape_of(LLAMA_8B)
    skewed = equally_long(100, 100).model_copy(update={"padded_mean": 400.0})
    padded = work_of(shape, training(epochs=1, batch_size=1), 100, skewed)
    packed = work_of(shape, training(epochs=1, batch_size=1, packing=True, max_seq_length=1000), 100, skewed)
    assert packed.flops < padded.flops / 3
    assert (padded.steps, packed.steps) == (100, 10)
    assert padded.tokens == packed.tokens == 10_000


def test_a_faster_gpu_takes_less() -> None:
    work = Work(steps=100, tokens=10**6, flops=1e18, layer_passes=3200, dequantized_weights=1e12)
    times = [
        seconds_of(work, on(name))[1] for name in ("Tesla-T4", "NVIDIA-A10", "NVIDIA-A100-SXM4-80GB", "NVIDIA-B200")
    ]
    assert times == sorted(times, reverse=True)
