"""Well-known open base models to begin with, as their publishers describe them on the Hugging Face hub.

Any other model of the hub works as well; these are those that a form offers. `parameters` is the number that the hub
counts in the weights; a test compares it with what follows from the shape, which is of the model's own `config.json`.
"""

from dataclasses import dataclass
from typing import Literal

from finetune_operator.core.model_shape import ModelShape

Vertical = Literal["general", "coding", "mathematics"]
Capability = Literal["chat", "code", "mathematics", "multilingual", "reasoning", "tools"]


@dataclass(frozen=True)
class CatalogueModel:
    """One model; `context_tokens` is `max_position_embeddings`."""

    id: str
    """`<owner>/<name>` of the hub."""
    provider: str
    parameters: int
    context_tokens: int
    licence: str
    is_gated: bool
    """Whether the hub gives it out only to who has accepted the licence there."""
    vertical: Vertical
    capabilities: tuple[Capability, ...]
    shape: ModelShape
    recommended_for: str | None = None
    """What for, in a few words; None for what is not recommended."""


def _shape(
    model_type: Literal["llama", "mistral", "qwen2", "qwen3", "phi3"],
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    vocabulary: int,
    *,
    tied: bool,
    head_dim: int | None = None,
) -> ModelShape:
    return ModelShape(
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        head_dim=head_dim,
    )


APACHE = "Apache-2.0"
CATALOGUE: tuple[CatalogueModel, ...] = (
    CatalogueModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct", "Hugging Face", 134_515_008, 8192, APACHE, False, "general", ("chat",),
        _shape("llama", 576, 1536, 30, 9, 3, 49_152, tied=True),
        "trying things out, also without a GPU",
    ),
    CatalogueModel(
        "HuggingFaceTB/SmolLM2-360M-Instruct", "Hugging Face", 361_821_120, 8192, APACHE, False, "general", ("chat",),
        _shape("llama", 960, 2560, 32, 15, 5, 49_152, tied=True),
    ),
    CatalogueModel(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct", "Hugging Face", 1_711_376_384, 8192, APACHE, False, "general",
        ("chat", "tools"), _shape("llama", 2048, 8192, 24, 32, 32, 49_152, tied=True),
    ),
    CatalogueModel(
        "Qwen/Qwen3-0.6B", "Alibaba", 596_049_920, 40_960, APACHE, False, "general",
        ("chat", "multilingual", "reasoning", "tools"),
        _shape("qwen3", 1024, 3072, 28, 16, 8, 151_936, tied=True, head_dim=128),
        "a small model that knows many languages",
    ),
    CatalogueModel(
        "Qwen/Qwen3-1.7B", "Alibaba", 1_720_574_976, 40_960, APACHE, False, "general",
        ("chat", "multilingual", "reasoning", "tools"),
        _shape("qwen3", 2048, 6144, 28, 16, 8, 151_936, tied=True, head_dim=128),
    ),
    CatalogueModel(
        "Qwen/Qwen3-4B", "Alibaba", 4_022_468_096, 40_960, APACHE, False, "general",
        ("chat", "multilingual", "reasoning", "tools"),
        _shape("qwen3", 2560, 9728, 36, 32, 8, 151_936, tied=True, head_dim=128),
        "one GPU of 16 GB, with quantization 4bit",
    ),
    CatalogueModel(
        "Qwen/Qwen3-8B", "Alibaba", 8_190_735_360, 40_960, APACHE, False, "general",
        ("chat", "multilingual", "reasoning", "tools"),
        _shape("qwen3", 4096, 12_288, 36, 32, 8, 151_936, tied=False, head_dim=128),
        "one GPU of 24 GB, with quantization 4bit",
    ),
    CatalogueModel(
        "Qwen/Qwen2.5-0.5B-Instruct", "Alibaba", 494_032_768, 32_768, APACHE, False, "general",
        ("chat", "multilingual"), _shape("qwen2", 896, 4864, 24, 14, 2, 151_936, tied=True),
    ),
    CatalogueModel(
        "Qwen/Qwen2.5-7B-Instruct", "Alibaba", 7_615_616_512, 32_768, APACHE, False, "general",
        ("chat", "multilingual", "tools"), _shape("qwen2", 3584, 18_944, 28, 28, 4, 152_064, tied=False),
    ),
    CatalogueModel(
        "Qwen/Qwen2.5-Coder-7B-Instruct", "Alibaba", 7_615_616_512, 32_768, APACHE, False, "coding",
        ("chat", "code"), _shape("qwen2", 3584, 18_944, 28, 28, 4, 152_064, tied=False),
        "answers that are programs",
    ),
    CatalogueModel(
        "Qwen/Qwen2.5-Math-7B-Instruct", "Alibaba", 7_615_616_512, 4096, APACHE, False, "mathematics",
        ("chat", "mathematics"), _shape("qwen2", 3584, 18_944, 28, 28, 4, 152_064, tied=False),
    ),
    CatalogueModel(
        "meta-llama/Llama-3.2-1B-Instruct", "Meta", 1_235_814_400, 131_072, "Llama 3.2 Community", True, "general",
        ("chat", "multilingual", "tools"), _shape("llama", 2048, 8192, 16, 32, 8, 128_256, tied=True),
    ),
    CatalogueModel(
        "meta-llama/Llama-3.2-3B-Instruct", "Meta", 3_212_749_824, 131_072, "Llama 3.2 Community", True, "general",
        ("chat", "multilingual", "tools"),
        _shape("llama", 3072, 8192, 28, 24, 8, 128_256, tied=True, head_dim=128),
    ),
    CatalogueModel(
        "meta-llama/Llama-3.1-8B-Instruct", "Meta", 8_030_261_248, 131_072, "Llama 3.1 Community", True, "general",
        ("chat", "multilingual", "tools"), _shape("llama", 4096, 14_336, 32, 32, 8, 128_256, tied=False),
    ),
    CatalogueModel(
        "mistralai/Mistral-7B-Instruct-v0.3", "Mistral AI", 7_248_023_552, 32_768, APACHE, False, "general",
        ("chat", "tools"), _shape("mistral", 4096, 14_336, 32, 32, 8, 32_768, tied=False),
    ),
    CatalogueModel(
        "microsoft/phi-4", "Microsoft", 14_659_507_200, 16_384, "MIT", False, "general", ("chat", "reasoning"),
        _shape("phi3", 5120, 17_920, 40, 40, 10, 100_352, tied=False),
    ),
)  # fmt: skip


def catalogued(base_model: str) -> CatalogueModel | None:
    """By the id of the hub, whatever its revision."""
    wanted = base_model.partition("@")[0]
    return next((model for model in CATALOGUE if model.id == wanted), None)
