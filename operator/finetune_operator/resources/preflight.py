"""What a FineTuneJob's status tells of a training before its trainer starts."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Decimal, LongText, ShortText

Fits = Literal["Likely", "Unlikely", "No"]


class TokensStatus(ApiModel):
    """Lengths of the training rows in tokens; of a pair (DPO) its longer answer counts."""

    method: Literal["Tokenizer", "Characters"]
    """Tokenizer: exact, by the base model's own and its chat template. Characters: estimated, four to a token."""
    sampled_rows: int
    """Rows looked at, the first in an order that the seed makes random."""
    p50: int
    """Half of the rows are no longer."""
    p95: int
    """95 % of the rows are no longer."""
    max: int
    """The longest row looked at."""
    over_length_percent: Decimal
    """Share of rows that are cut at training.maxSeqLength."""
    trained: int | None = None
    """Tokens trained on in all steps, without padding."""


class EstimateStatus(ApiModel):
    """What the steps take on the device that the job asks for; loading the model and evaluations come on top."""

    device: ShortText
    """GPU type or CPU cores, and how many; of a provider, its model."""
    fits: Fits | None = None
    """Whether the memory suffices: No is certain, Likely and Unlikely are estimates."""
    time: ShortText | None = None
    """From the least that it can take to what it is unlikely to exceed, for printing."""
    min_seconds: int | None = None
    """The least that it can take."""
    max_seconds: int | None = None
    """What it is unlikely to exceed."""
    cost: ShortText | None = None
    """Time x price, for printing."""
    min_cost: Decimal | None = None
    """Of minSeconds."""
    max_cost: Decimal | None = None
    """Of maxSeconds."""
    currency: Annotated[str, Field(max_length=16)] | None = None
    """Of the amounts."""
    message: ShortText | None = None
    """Why time or cost are not known."""


class ComparedStatus(ApiModel):
    """The same on one GPU of another type."""

    device: ShortText
    """The GPU type."""
    fits: Fits | None = None
    """Whether its memory suffices."""
    time: ShortText | None = None
    """From the least that it can take to what it is unlikely to exceed."""
    cost: ShortText | None = None
    """Time x price; absent where prices.gpuTypes of the chart has none for it."""


class ShapeStatus(ApiModel):
    """The base model's dimensions, as its config.json names them; what later trainings of it are estimated by."""

    model_type: ShortText
    """Family of architectures, such as llama."""
    hidden_size: int
    """Width of a layer."""
    intermediate_size: int
    """Width within a layer's MLP."""
    num_hidden_layers: int
    """Layers."""
    num_attention_heads: int
    """Query heads of a layer."""
    vocab_size: int
    """Tokens that the model knows."""
    num_key_value_heads: int | None = None
    """Key and value heads of a layer; as many as query heads where absent."""
    head_dim: int | None = None
    """Width of a head; hiddenSize / numAttentionHeads where absent."""
    tie_word_embeddings: bool | None = None
    """Whether the head is the same matrix as the embedding."""


class PreflightStatus(ApiModel):
    """What was found out before the trainer started."""

    parameters_billion: Decimal | None = None
    """Size of the base model; absent where it does not follow from its config, and at a provider."""
    shape: ShapeStatus | None = None
    """What that size follows from."""
    memory_gib: Annotated[Decimal | None, Field(alias="memoryGiB")] = None
    """GPU memory that the training needs: weights, adapter, optimizer, activations and logits."""
    gpu_memory_gib: Annotated[int | None, Field(alias="gpuMemoryGiB")] = None
    """What the GPU type of the nodeSelector has."""
    steps: int | None = None
    """Optimizer steps to do."""
    tokens: TokensStatus | None = None
    """How long the rows are."""
    estimate: EstimateStatus | None = None
    """Time and cost of the steps, estimated; once it trains, progress.eta and cost.estimated say more."""
    compared: Annotated[tuple[ComparedStatus, ...], Field(max_length=8)] = ()
    """Time and cost on other GPU types; `finetune-operator estimate` lists more."""
    warnings: Annotated[tuple[LongText, ...], Field(max_length=8)] = ()
    """What may go wrong, and what to change."""
