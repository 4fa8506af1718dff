"""Whether a training fits into a GPU's memory, estimated before one is taken.

An estimate adds up frozen weights, the adapter with gradients and optimizer, activations, logits and CUDA's context.
Refused is only what is certain: weights and adapter alone do not fit. For other models than dense decoders of Llama's
shape nothing is estimated. Sources, by arXiv number:

- 4.127 bits a weight in NF4 with double quantization: QLoRA, 2305.14314, section 3.
- Under gradient checkpointing one input a layer, and 34 s b h bytes within the layer at hand (fused attention keeps no
  attention matrix): Korthikanti et al., 2205.05198, sections 4.1 and 5.
- 16 bytes a trained weight with Adam in mixed precision: ZeRO, 1910.02054, section 3.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.preflight import Preflight
from finetune_operator.contract.training import TrainingConfig

GIB = 2**30
WEIGHT_BYTES: Mapping[str, float] = {"none": 2.0, "8bit": 1.0, "4bit": 4.127 / 8}
"""Of the linear layers; embeddings, norms and the head stay at two bytes."""
UNQUANTIZED_BYTES = 2
TRAINED_BYTES = 16
LEAST_TRAINED_BYTES = 4
"""An adapter and its gradients in bfloat16, with an optimizer that keeps next to nothing."""
LAYER_ACTIVATION_BYTES = 34
LOGIT_BYTES = {"HuggingFace": 10, "Unsloth": 2}
"""Of a logit: bfloat16, its float32 copy and gradient; Unsloth computes the loss in chunks and keeps the first only."""
CUDA_CONTEXT_GIB = 1.0
SIZE_IN_NAME = re.compile(r"(?<![0-9])([0-9]+)GB(?![0-9])")
# As NVIDIA's GPU feature discovery spells `nvidia.com/gpu.product`, for names that do not tell their memory.
GPU_MEMORY_GIB: Mapping[str, int] = {
    "NVIDIA-A10": 24,
    "NVIDIA-A10G": 24,
    "NVIDIA-A40": 48,
    "NVIDIA-B200": 180,
    "NVIDIA-GeForce-RTX-3090": 24,
    "NVIDIA-GeForce-RTX-4090": 24,
    "NVIDIA-GeForce-RTX-5090": 32,
    "NVIDIA-H100-PCIe": 80,
    "NVIDIA-H200": 141,
    "NVIDIA-L4": 24,
    "NVIDIA-L40": 48,
    "NVIDIA-L40S": 48,
    "NVIDIA-RTX-A6000": 48,
    "Tesla-T4": 16,
}

Count = Annotated[int, Field(ge=1)]


class ModelShape(BaseModel):
    """The part of a decoder's `config.json` from which its size follows, under Transformers' names.

    The kinds are those whose blocks have Llama's seven matrices, and no experts.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model_type: Literal[
        "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "granite", "olmo2"
    ]
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    vocab_size: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    tie_word_embeddings: bool | None = None
    quantization_config: None = None

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of one block's matrices."""
        head = self.head_dim or self.hidden_size // self.num_attention_heads
        queries = head * self.num_attention_heads
        keys = head * (self.num_key_value_heads or self.num_attention_heads)
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear_parameters(self) -> int:
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.linear_layers.values())

    @property
    def other_parameters(self) -> int:
        """Embeddings, the head where it is not the same matrix, and two norms a block and one at the end."""
        tied = self.tie_word_embeddings
        if tied is None:
            # What Transformers takes where the file is silent.
            tied = self.model_type.startswith("gemma")
        embeddings = self.vocab_size * self.hidden_size * (1 if tied else 2)
        return embeddings + (2 * self.num_hidden_layers + 1) * self.hidden_size


@dataclass(frozen=True)
class Fit:
    """What the training needs; `least_gib` is what it can't do without, whatever the batch."""

    preflight: Preflight
    least_gib: float


def model_shape(config_json: str) -> ModelShape | None:
    """None where its size does not follow so: experts, several models in one, weights that are quantized already."""
    try:
        return ModelShape.model_validate_json(config_json)
    except ValidationError:
        return None


def fit(shape: ModelShape, config: TrainingConfig) -> Fit:
    """The estimate for one GPU; each of several holds the whole model."""
    training = config.training
    weights = shape.linear_parameters * WEIGHT_BYTES[training.quantization] + shape.other_parameters * UNQUANTIZED_BYTES
    adapter = _adapter_parameters(shape, config)
    tokens = training.batch_size * training.max_seq_length * (2 if config.method == "DPO" else 1)
    layers = shape.num_hidden_layers
    inner = LAYER_ACTIVATION_BYTES * tokens * shape.hidden_size
    kept = 2 * tokens * shape.hidden_size * layers + inner if training.gradient_checkpointing else inner * layers
    logits = tokens * shape.vocab_size * LOGIT_BYTES.get(config.backend, LOGIT_BYTES["HuggingFace"])
    total = (weights + adapter * TRAINED_BYTES + kept + logits) / GIB + CUDA_CONTEXT_GIB
    billions = (shape.linear_parameters + shape.other_parameters) / 1e9
    return Fit(
        Preflight(
            parameters_billion=round(billions, 2 if billions >= 1 else 5),
            memory_gib=round(total, 1),
            gpu_memory_gib=gpu_memory_gib(config.gpu_type),
        ),
        least_gib=(weights + adapter * LEAST_TRAINED_BYTES) / GIB,
    )


def refusal(found: Fit, config: TrainingConfig) -> Failure | None:
    """Only where weights and adapter alone are beyond the GPU: the rest is an estimate, and may well fit."""
    has = found.preflight.gpu_memory_gib
    if has is None or found.least_gib <= has:
        return None
    quantization = config.training.quantization
    smaller = "" if quantization == "4bit" else f"training.quantization 4bit instead of {quantization}, "
    return Failure(
        reason=FailureReason.OUT_OF_MEMORY,
        message=(
            f"{found.preflight.parameters_billion:g} billion parameters with quantization {quantization} take "
            f"{found.least_gib:.1f} GiB before the first example, and {config.gpu_type} has {has} GiB"
        ),
        remedy=f"create a new job with {smaller}a smaller base model or a GPU type with more memory",
    )


def gpu_memory_gib(gpu_type: str | None) -> int | None:
    """Memory of a type by its name; None where it is not known."""
    if gpu_type is None:
        return None
    told = SIZE_IN_NAME.search(gpu_type)
    return int(told[1]) if told else GPU_MEMORY_GIB.get(gpu_type)


def _adapter_parameters(shape: ModelShape, config: TrainingConfig) -> int:
    """Two matrices of rank r for each matrix that gets an adapter; names that are none of a block's are not counted."""
    wanted = {name.rsplit(".", 1)[-1] for name in config.lora.target_modules}
    sizes = (inputs + outputs for name, (inputs, outputs) in shape.linear_layers.items() if name in wanted)
    return shape.num_hidden_layers * config.lora.r * sum(sizes)
