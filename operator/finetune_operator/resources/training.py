"""How a FineTuneJob trains: the shape of the adapter and TRL's parameters."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Fraction, PositiveDecimal, Rule, rule, rules

# Of a FineTuneJob's spec.
JOB_RULES: tuple[Rule, ...] = (
    rule(
        "!has(self.training.earlyStopping) && !has(self.training.evalSteps) || double(self.dataset.testFraction) > 0.0",
        "evaluation during the training needs held-out rows: set dataset.testFraction above 0",
        field_path=".training",
    ),
    rule(
        "!self.training.packing || self.method == 'SFT'",
        "only conversations (SFT) can be packed: set training.packing to false",
        field_path=".training.packing",
    ),
)

ArgumentName = Annotated[str, Field(max_length=64)]
ArgumentValue = Annotated[str, Field(max_length=256)]


class Lora(ApiModel):
    """PEFT's LoRA parameters."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the adapter: a higher one learns more, and takes more memory."""
    alpha: Annotated[int, Field(ge=1, le=1024)] = 32
    """Scaling; the adapter's output is multiplied by alpha / r."""
    dropout: Fraction = "0.05"
    """Dropout of the adapter's input."""
    target_modules: Annotated[
        tuple[Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.]+$")], ...], Field(max_length=32)
    ] = ()
    """Modules that get an adapter; all linear layers of attention and MLP where empty."""


class LrScheduler(StrEnum):
    """How the learning rate goes on after its warm-up: Transformers' schedules."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    COSINE_WITH_RESTARTS = "CosineWithRestarts"
    POLYNOMIAL = "Polynomial"
    CONSTANT = "Constant"
    CONSTANT_WITH_WARMUP = "ConstantWithWarmup"
    INVERSE_SQRT = "InverseSqrt"


class EarlyStopping(ApiModel):
    """End once the held-out loss no longer falls, and publish the adapter of the best evaluation."""

    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Evaluations in a row without improvement after which the training ends."""
    min_delta: PositiveDecimal = "0"
    """An evaluation is an improvement if its loss is lower than the best by more than this."""


class Training(ApiModel):
    """TRL's training parameters."""

    model_config = rules(
        rule(
            "!has(self.warmupRatio) || self.warmupSteps == 0",
            "warmupSteps and warmupRatio say the same: set one of them",
            field_path=".warmupRatio",
        ),
        rule(
            "!has(self.arguments) || self.arguments.all(name, name.matches('^[a-z][a-z0-9_]*$'))",
            "arguments are named as TRL names them, such as adam_beta2",
            field_path=".arguments",
        ),
    )

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
    warmup_ratio: Fraction | None = None
    """The same as a share of all steps."""
    lr_scheduler: LrScheduler = LrScheduler.LINEAR
    """How the learning rate goes on from its peak."""
    optimizer: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9_]+$")] | None = None
    """One of Transformers' optimizers, such as adamw_8bit or adafactor; TRL's own choice where absent."""
    weight_decay: PositiveDecimal = "0"
    """Pull of all weights of the adapter towards zero."""
    max_grad_norm: PositiveDecimal = "1"
    """Gradients with a larger norm are scaled down to it; 0 leaves them."""
    neftune_noise_alpha: PositiveDecimal | None = None
    """Noise on the embeddings during the training (NEFTune); a common value is 5."""
    packing: bool = False
    """Put several short conversations into one sequence of maxSeqLength (SFT); each sees itself alone."""
    eval_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Measure the loss on the held-out rows each time after this many optimizer steps."""
    early_stopping: EarlyStopping | None = None
    """End when the held-out loss no longer falls; a checkpoint is then written at each evaluation (evalSteps, or \
saveSteps where that is absent)."""
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
    arguments: Annotated[dict[ArgumentName, ArgumentValue], Field(max_length=24)] = {}
    """Any further argument of TRL's SFTConfig or DPOConfig by its own name, such as `adam_beta2: "0.98"`; the trainer \
refuses those that it doesn't know, that have a field of their own, that run code or leave the pod."""
