"""How long the steps of a training take on a device, as a range, before the first of them is made.

A multiplication by a weight is two operations a token: one forward pass costs 2 N a token, and the backward pass as
much again for the activations' gradients (Kaplan et al., 2001.08361, section 2.1). An adapter trains no weight of the
base model, so that the third 2 N of a full training is not there; gradient checkpointing repeats the forward pass
(Chen et al., 1604.06174). Attention costs 4 L d T a token more, half of it under the causal mask (PaLM, 2204.02311,
appendix B). N has the head in it and not the embedding, which is a look-up.

How much of a device's peak a training reaches differs: hence a range. Its two ends were chosen so that the 42 figures
that Qwen's makers published of LoRA and Q-LoRA (1.8 to 72 billion parameters, 256 to 8192 tokens, one A100) lie within;
tests/unit/core/test_training_time.py has them. Short batches are bound by the time that it takes to start a layer's
kernels, and quantized weights by making 16-bit numbers of them.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from finetune_operator.contract.preflight import TokenLengths, Work
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.model_shape import ModelShape, adapter_parameters

TERA = 1e12


class Pace(NamedTuple):
    """`used_share` of the peak; operations that making one 16-bit number of a quantized weight takes the time of."""

    used_share: float
    layer_seconds: float
    dequantization: float


@dataclass(frozen=True)
class Device:
    """What one training process runs on."""

    peak_tflops: float
    fast: Pace
    slow: Pace


def gpu_device(peak_tflops: float) -> Device:
    return Device(peak_tflops, Pace(0.6, 0.002, 0), Pace(0.25, 0.010, 4000))


def cpu_device(peak_tflops: float) -> Device:
    """All cores together. Measured: 15 to 20 ms a layer for the demo's model, on 2 cores (README)."""
    return Device(peak_tflops, Pace(0.8, 0.002, 0), Pace(0.1, 0.040, 0))


class Steps(NamedTuple):
    """`epochs` are those that `max_steps` leaves; `batches` those of one process."""

    steps: int
    epochs: float
    batches: int


def steps_of(examples: float, config: TrainingConfig) -> Steps:
    """As Transformers' Trainer counts: the last batch and the last accumulation of an epoch may be short."""
    training = config.training
    batches = math.ceil(examples / (training.batch_size * (config.processes or 1)))
    per_epoch = max(1, math.ceil(batches / training.gradient_accumulation_steps))
    steps = training.max_steps or math.ceil(training.epochs * per_epoch)
    epochs = steps / per_epoch
    return Steps(steps, epochs, math.ceil(batches * epochs))


def work_of(shape: ModelShape, config: TrainingConfig, rows: int, lengths: TokenLengths) -> Work:
    """Of a training on so many rows; each process has its share of the batches."""
    training = config.training
    learnable = rows * (1 - lengths.unlearnable / lengths.sampled_rows) if config.method == "SFT" else rows
    if training.packing:
        sequences = math.ceil(learnable * lengths.mean / training.max_seq_length)
        steps = steps_of(sequences, config)
        computed = learnable * lengths.mean
    else:
        steps = steps_of(learnable, config)
        computed = learnable * lengths.padded_mean
    processes = config.processes or 1
    passes = 2 + (1 if training.gradient_checkpointing else 0)
    is_quantized = training.quantization != "none"
    return Work(
        steps=steps.steps,
        tokens=round(learnable * lengths.mean * steps.epochs),
        flops=_flops_per_token(shape, config, lengths) * computed * steps.epochs / processes,
        layer_passes=steps.batches * shape.num_hidden_layers,
        processes=processes,
        dequantized_weights=float(shape.linear_parameters * passes * steps.batches) if is_quantized else 0.0,
    )


def seconds_of(work: Work, device: Device) -> tuple[float, float]:
    """The least that it can take, and what it is unlikely to exceed; of the steps alone, without loading the model."""
    peak = device.peak_tflops * TERA
    fast, slow = device.fast, device.slow
    least = max(work.flops / (fast.used_share * peak), work.layer_passes * fast.layer_seconds)
    most = (
        work.flops / (slow.used_share * peak)
        + work.layer_passes * slow.layer_seconds
        + work.dequantized_weights * slow.dequantization / peak
    )
    return least, most


def _flops_per_token(shape: ModelShape, config: TrainingConfig, lengths: TokenLengths) -> float:
    """Forward and backward; DPO asks the base model, too, how likely each answer was."""
    packed = config.training.packing
    answers = 2 if config.method == "DPO" else 1
    context = min(lengths.mean if packed else lengths.padded_mean / answers, config.training.max_seq_length)
    layers = 2.0 * shape.linear_parameters
    head = 2.0 * shape.vocab_size * shape.hidden_size
    attention = 2.0 * shape.num_hidden_layers * shape.attention_width * context
    forward = layers + head + attention
    backward = layers + head + 2 * attention
    repeated = layers + attention if config.training.gradient_checkpointing else 0.0
    reference = forward if config.method == "DPO" else 0.0
    return forward + backward + repeated + reference + 6.0 * adapter_parameters(shape, config)
