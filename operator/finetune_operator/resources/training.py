"""How a FineTuneJob trains: the shape of the adapter and TRL's parameters."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Fraction, PositiveDecimal


class Lora(ApiModel):
    """PEFT's LoRA parameters."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank."""
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    """Scaling; the adapter's output is multiplied by alpha / r."""
    dropout: Fraction = "0.05"
    """Dropout of the adapter's input."""
    target_modules: Annotated[
        tuple[Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.]+$")], ...], Field(max_length=32)
    ] = ()
    """Modules that get an adapter; all linear layers of attention and MLP where empty."""


class Training(ApiModel):
    """TRL's training parameters."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the dataset."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """End after this many optimizer steps."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 4
    """Examples per device and step."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    """Steps whose gradients make one optimizer step."""
    learning_rate: PositiveDecimal = "2e-4"
    """Peak learning rate."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps until the learning rate has reached its peak."""
    max_seq_length: Annotated[int, Field(ge=8, le=10_000_000)] = 2048
    """Longest example in tokens; longer ones are cut."""
    quantization: Literal["4bit", "8bit", "none"] = "4bit"
    """Precision of the frozen base model; without a GPU only `none` works."""
    gradient_checkpointing: bool = True
    """Trade computation for memory."""
    save_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Optimizer steps between two checkpoints."""
    dpo_beta: PositiveDecimal = "0.1"
    """Strength of the pull towards the base model (DPO)."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Seed of shuffling, split and initialisation."""
