"""FineTuneJob: one training of one adapter, from dataset to published ModelVersion."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from finetune_operator.resources.common import (
    ApiModel,
    BaseModelRef,
    Conditions,
    Decimal,
    DnsLabel,
    DnsSubdomain,
    Fraction,
    LongText,
    ModelName,
    PositiveDecimal,
    Resource,
    ResourceRequirements,
    Scheduling,
    SecretKeyRef,
    Sha256,
    ShortText,
    Timestamp,
    VolumeRef,
    exactly_one,
    immutable,
    rule,
    rules,
)
from finetune_operator.resources.serving import ServingSpec

KIND = "FineTuneJob"


class Method(StrEnum):
    """TRL's trainers."""

    SFT = "SFT"
    DPO = "DPO"


class Backend(StrEnum):
    """What runs the training."""

    UNSLOTH = "Unsloth"
    HUGGING_FACE = "HuggingFace"


class Promotion(StrEnum):
    """What makes a published version the active one."""

    MANUAL = "Manual"
    ALWAYS = "Always"


class DatasetFormat(StrEnum):
    """Record formats; a DPO job reads preference pairs whatever is set here."""

    CHAT_ML = "ChatML"
    ALPACA = "Alpaca"
    OPEN_AI = "OpenAI"


class Ratings(ApiModel):
    """Rows of the table `ml_analysis_rating`."""

    secret_ref: SecretKeyRef
    """Where the database's SQLAlchemy URL is kept, such as `postgresql+psycopg://user:password@host/db`."""
    claim_name: DnsSubdomain | None = None
    """Volume of an SQLite database, mounted at /ratings; absent for a database server."""
    philosopher: ShortText | None = None
    """Only judgements of this person."""
    domain: ShortText | None = None
    """Only this domain."""
    task_type: ShortText | None = None
    """Only this type of task."""
    min_rating: Annotated[int, Field(ge=1, le=5)] = 4
    """Lowest rating that is taken (SFT)."""
    gold_star_only: bool = True
    """Only rows with is_gold_star and use_as_sample_response (SFT)."""
    limit: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Take at most this many rows, the newest first."""


class Dataset(ApiModel):
    """What to train on."""

    model_config = rules(exactly_one("ratings", "volume"))

    ratings: Ratings | None = None
    """Export from a ratings database."""
    volume: VolumeRef | None = None
    """A JSONL file on a volume."""
    format: DatasetFormat = DatasetFormat.CHAT_ML
    """Format of the records (SFT)."""
    test_fraction: Fraction = "0.1"
    """Share of prompts that is held out for evaluation."""
    min_examples: Annotated[int, Field(ge=1, le=10_000_000)] = 50
    """Refuse to train on fewer rows than this."""
    min_prompt_characters: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Drop rows with a shorter prompt."""
    min_response_characters: Annotated[int, Field(ge=0, le=100_000)] = 20
    """Drop rows with a shorter response."""
    min_rating_difference: Annotated[int, Field(ge=1, le=4)] = 1
    """How much better the chosen answer of a pair must be rated (DPO)."""


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


IMMUTABLE_FIELDS = (
    "model", "baseModel", "method", "backend", "dataset", "lora", "training", "resources", "scheduling", "serving",
    "promotion", "activeDeadlineSeconds",
)  # fmt: skip


class FineTuneJobSpec(ApiModel):
    """What to train, on what, and what to do with the result."""

    model_config = rules(
        *(immutable(name) for name in IMMUTABLE_FIELDS),
        rule(
            "!has(self.serving) || self.lora.r <= self.serving.maxLoraRank",
            "lora.r is beyond serving.maxLoraRank: lower r or raise maxLoraRank",
            field_path=".lora.r",
        ),
    )

    model: ModelName
    """Family: a success creates ModelVersion `<model>-v<N>`, and the gateway answers to this name."""
    base_model: BaseModelRef
    """The model to adapt."""
    method: Method = Method.SFT
    """SFT learns from good answers, DPO from pairs of a better and a worse one."""
    backend: Backend = Backend.UNSLOTH
    """What runs the training."""
    dataset: Dataset
    """What to train on."""
    lora: Lora = Lora()
    """Shape of the adapter."""
    training: Training = Training()
    """How to train."""
    resources: ResourceRequirements = ResourceRequirements()
    """Compute resources of the trainer; a GPU is `limits: {nvidia.com/gpu: 1}`."""
    scheduling: Scheduling = Scheduling()
    """Where the trainer may run."""
    serving: ServingSpec | None = None
    """How the resulting version is served; absent, it is only registered."""
    promotion: Promotion = Promotion.MANUAL
    """Always makes the version active as soon as it answers."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Give up after this time."""
    suspend: bool = False
    """Stop the trainer (it checkpoints) and free its resources until this is false again."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=60, le=31_536_000)] | None = None
    """Remove the finished training's pods after this time, at least a minute; the ModelVersion stays."""


class Phase(StrEnum):
    """For printing; conditions are the API."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ProgressStatus(ApiModel):
    """Where the training stands; at most one write in ten seconds."""

    summary: ShortText = "0%"
    """Percent, for printing."""
    percent: int = 0
    """Whole percent of all steps."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps to do."""
    epoch: Decimal = "0.0"
    """Passes over the dataset done."""
    total_epochs: Decimal = "0.0"
    """Passes over the dataset to do."""
    loss: Decimal | None = None
    """Training loss at the last step."""
    best_loss: Decimal | None = None
    """Lowest training loss so far."""
    eta_seconds: int | None = None
    """Seconds until the training ends."""
    eta: ShortText | None = None
    """The same, for printing."""
    last_update_time: Timestamp | None = None
    """When this was written."""


class DatasetStatus(ApiModel):
    """What was trained on."""

    rows: int
    """Training rows."""
    test_rows: int
    """Held-out rows."""
    digest: Sha256
    """Same data, same digest."""


class ResultStatus(ApiModel):
    """What came out."""

    final_loss: Decimal | None = None
    """Training loss at the end."""
    test_loss: Decimal | None = None
    """Loss on the held-out rows."""
    base_test_loss: Decimal | None = None
    """The base model's loss on the same rows."""
    train_seconds: int | None = None
    """Duration of the training itself."""


class FineTuneJobStatus(ApiModel):
    """What the operator knows; bounded, the series live in the database."""

    observed_generation: int | None = None
    """The generation that this speaks of."""
    phase: Phase | None = None
    """For printing; conditions are the API."""
    message: LongText | None = None
    """The fact behind the phase and, after a failure, what to change."""
    progress: ProgressStatus | None = None
    """Where the training stands."""
    dataset: DatasetStatus | None = None
    """What was trained on."""
    result: ResultStatus | None = None
    """What came out."""
    attempts: int | None = None
    """Pods started so far."""
    job_name: DnsSubdomain | None = None
    """The training's Kubernetes Job."""
    model_version: DnsLabel | None = None
    """The version that this job made."""
    start_time: Timestamp | None = None
    """When the Job was made."""
    completion_time: Timestamp | None = None
    """When it ended."""
    conditions: Conditions = ()
    """DatasetReady, Trained, Published, Succeeded, Ready; Reconciling, Stalled and Suspended only while true."""


class FineTuneJob(Resource):
    """Trains a LoRA adapter and publishes it as a ModelVersion."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("size(self.metadata.name) <= 52", "metadata.name must have at most 52 characters")
            ]
        }
    )

    spec: FineTuneJobSpec
    status: FineTuneJobStatus = FineTuneJobStatus()
