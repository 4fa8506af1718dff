"""What a base model's `config.json` tells of its size; for dense decoders of Llama's shape only."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.contract.preflight import Shape
from finetune_operator.contract.training import TrainingConfig

# No published model comes near; beyond it the estimates' numbers would be none.
Count = Annotated[int, Field(ge=1, le=100_000_000)]


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
    def attention_width(self) -> int:
        """Of all heads' queries together."""
        return self.linear_layers["q_proj"][1]

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


def model_shape(config_json: str) -> ModelShape | None:
    """None where its size does not follow so: experts, several models in one, weights that are quantized already."""
    try:
        return ModelShape.model_validate_json(config_json)
    except ValidationError:
        return None


def told_shape(status: Mapping[str, object]) -> ModelShape | None:
    """Of `status.preflight.shape`, which anybody may have written who may write a status."""
    try:
        return ModelShape.model_validate(Shape.model_validate(status).model_dump())
    except ValidationError:
        return None


def shape_to_tell(shape: ModelShape) -> Shape:
    return Shape.model_validate(shape.model_dump(exclude={"quantization_config"}))


def adapter_parameters(shape: ModelShape, config: TrainingConfig) -> int:
    """Two matrices of rank r for each matrix that gets an adapter; names that are none of a block's are not counted."""
    wanted = {name.rsplit(".", 1)[-1] for name in config.lora.target_modules}
    sizes = (inputs + outputs for name, (inputs, outputs) in shape.linear_layers.items() if name in wanted)
    return shape.num_hidden_layers * config.lora.r * sum(sizes)
