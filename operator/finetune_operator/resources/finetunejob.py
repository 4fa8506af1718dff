"""FineTuneJob: one training of one adapter, from dataset to published ModelVersion."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_operator.resources.axolotl import JOB_RULES as AXOLOTL_RULES
from finetune_operator.resources.common import (
    ApiModel,
    BaseModelRef,
    Conditions,
    Decimal,
    DnsLabel,
    DnsSubdomain,
    LongText,
    ModelName,
    Resource,
    ResourceRequirements,
    Scheduling,
    Sha256,
    ShortText,
    Timestamp,
    immutable,
    rule,
    rules,
)
from finetune_operator.resources.cost import AllocationStatus, Budget, CostStatus
from finetune_operator.resources.dataset import Dataset, Ratings
from finetune_operator.resources.evaluation import Evaluation, EvaluationStatus
from finetune_operator.resources.outputs import JOB_RULES as OUTPUT_RULES
from finetune_operator.resources.outputs import MAX_ARTIFACTS, ArtifactStatus, Outputs
from finetune_operator.resources.preflight import PreflightStatus
from finetune_operator.resources.provider import JOB_RULES, OpenAIProvider
from finetune_operator.resources.serving import ServingSpec
from finetune_operator.resources.starting_point import STARTING_RULES, InitFrom, InitFromStatus
from finetune_operator.resources.tracking import ReportTo
from finetune_operator.resources.training import JOB_RULES as TRAINING_RULES
from finetune_operator.resources.training import Lora, Training

KIND = "FineTuneJob"


class Method(StrEnum):
    """TRL's trainers."""

    SFT = "SFT"
    DPO = "DPO"


class Backend(StrEnum):
    """What runs the training."""

    UNSLOTH = "Unsloth"
    HUGGING_FACE = "HuggingFace"
    AXOLOTL = "Axolotl"
    OPEN_AI = "OpenAI"


class Promotion(StrEnum):
    """What makes a published version the active one."""

    MANUAL = "Manual"
    ALWAYS = "Always"


IMMUTABLE_FIELDS = (
    "model", "baseModel", "method", "backend", "openai", "dataset", "initFrom", "lora", "training", "reportTo",
    "evaluation", "outputs", "resources",
    "nodes", "scheduling", "serving", "promotion", "activeDeadlineSeconds",
)  # fmt: skip


MAX_NODES = 16


class FineTuneJobSpec(ApiModel):
    """What to train, on what, and what to do with the result."""

    model_config = rules(
        *(immutable(name) for name in IMMUTABLE_FIELDS),
        rule(
            "!has(self.serving) || self.lora.r <= self.serving.maxLoraRank",
            "lora.r is beyond serving.maxLoraRank: lower r or raise maxLoraRank",
            field_path=".lora.r",
        ),
        *JOB_RULES,
        *TRAINING_RULES,
        *STARTING_RULES,
        *OUTPUT_RULES,
        *AXOLOTL_RULES,
        rule(
            "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
            "a cancelled job can't be taken up again: create a new one",
            field_path=".cancel",
        ),
        rule(
            "self.nodes == 1 || self.backend in ['Unsloth', 'HuggingFace']",
            "only the backends Unsloth and HuggingFace train on several nodes: set nodes to 1",
            field_path=".nodes",
        ),
        rule(
            "!has(self.budget) || self.backend != 'OpenAI'",
            "a provider tells what a training costs at its end, so that no budget can stop it: remove budget",
            field_path=".budget",
        ),
        rule(
            "!has(self.evaluation) || double(self.dataset.testFraction) > 0.0",
            "evaluation needs held-out rows: set dataset.testFraction above 0",
            field_path=".evaluation",
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
    openai: OpenAIProvider | None = None
    """The provider that trains (backend OpenAI)."""
    dataset: Dataset = Dataset(ratings=Ratings())
    """What to train on."""
    init_from: InitFrom | None = None
    """An earlier version whose adapter is trained on; absent, the training begins with the base model."""
    lora: Lora = Lora()
    """Shape of the adapter."""
    training: Training = Training()
    """How to train."""
    report_to: ReportTo | None = None
    """Trackers of experiments to report to, besides the product's own series."""
    evaluation: Evaluation | None = None
    """What to measure on the held-out rows, and what a promotion asks of it; absent, only the loss is measured."""
    outputs: Outputs = ()
    """What to make besides the adapter, in the job's directory on the artifacts volume. MergedWeights: a model that
    needs no adapter (safetensors, 16 bit, or 32 without a GPU), merged from the unquantized base model on the CPU,
    which takes as much memory and disk as its weights. GgufF16 and GgufQ8: the merged model as one file for llama.cpp
    and what is built on it, in 16 or 8 bit, if llama.cpp knows the architecture and the tokenizer. OllamaModelfile: for
    `ollama create`, of the merged weights or else of the adapter. UnslothScript: the same training as a Python script
    that runs anywhere. What can't be made is told by the condition Exported; the adapter is published all the same."""
    resources: ResourceRequirements = ResourceRequirements()
    """Compute resources of the trainer; a GPU is `limits: {nvidia.com/gpu: 1}`."""
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    """Pods that train together, at most 16, each with these resources: one process for each GPU, all data parallel, so
    that a step learns from nodes x GPUs x batchSize x gradientAccumulationSteps examples. With more than one, the
    volume of artifacts must be ReadWriteMany. A pod that ends is followed by new ones of all, from the last
    checkpoint."""
    scheduling: Scheduling = Scheduling()
    """Where the trainer may run."""
    serving: ServingSpec | None = None
    """How the resulting version is served; absent, it is only registered."""
    promotion: Promotion = Promotion.MANUAL
    """Always makes the version active as soon as it answers."""
    budget: Budget | None = None
    """What the training may cost; may be changed at any time. A job without a known price does not begin with one."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Give up after this time."""
    suspend: bool = False
    """Stop the trainer (it checkpoints) and free its resources until this is false again."""
    cancel: bool = False
    """End the training for good (it checkpoints) and free its resources; it can't be set back."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=60, le=31_536_000)] | None = None
    """Remove the finished training's pods after this time, at least a minute; the ModelVersion stays."""


class Phase(StrEnum):
    """For printing; conditions are the API."""

    QUEUED = "Queued"
    PENDING = "Pending"
    PREPARING = "Preparing"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


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


class CheckpointStatus(ApiModel):
    """The newest whole checkpoint: from here another attempt goes on."""

    step: int
    """Optimizer steps done by then."""
    time: Timestamp
    """When it was complete."""


class LastFailure(ApiModel):
    """Why the latest pod that failed was followed by another one."""

    reason: Annotated[str, Field(max_length=64)]
    """One CamelCase word for programs."""
    message: LongText
    """The fact, and what can be changed."""
    time: Timestamp
    """When the pod ended, as far as it is known."""
    pod: DnsSubdomain
    """The pod's name."""


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
    checkpoint: CheckpointStatus | None = None
    """From where another attempt would go on."""
    dataset: DatasetStatus | None = None
    """What was trained on."""
    init_from: InitFromStatus | None = None
    """What spec.initFrom was when the training began."""
    preflight: PreflightStatus | None = None
    """What was found out before the trainer started: lengths, memory, time and cost; absent at a provider."""
    result: ResultStatus | None = None
    """What came out."""
    evaluation: EvaluationStatus | None = None
    """What was measured on the held-out rows."""
    artifacts: Annotated[tuple[ArtifactStatus, ...], Field(max_length=MAX_ARTIFACTS)] | None = None
    """What the training left in its directory on the artifacts volume; artifacts.json there lists each file."""
    attempts: int | None = None
    """Pods started so far; with several nodes, groups of pods."""
    last_failure: LastFailure | None = None
    """Of an attempt that was followed by another one; the reason of the end is in the conditions."""
    cost: CostStatus | None = None
    """What it costs."""
    allocation: AllocationStatus | None = None
    """What the cost is computed from."""
    job_name: DnsSubdomain | None = None
    """The training's Kubernetes Job."""
    model_version: DnsLabel | None = None
    """The version that this job made."""
    start_time: Timestamp | None = None
    """When the Job was made."""
    completion_time: Timestamp | None = None
    """When it ended."""
    conditions: Conditions = ()
    """DatasetReady, Trained, Published, Succeeded, Ready, CostKnown, WithinBudget (with a budget), Exported (where
    outputs are asked for), Evaluated (where metrics are), BestPublished (with early stopping); while true Reconciling,
    Stalled, Suspended."""


class FineTuneJob(Resource):
    """Trains a LoRA adapter and publishes it as a ModelVersion."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("size(self.metadata.name) <= 52", "metadata.name must have at most 52 characters"),
                # Its pods are named after it and their index, in labels of at most 63 characters.
                rule(
                    "self.spec.nodes <= 10 || size(self.metadata.name) <= 51",
                    "with more than 10 nodes, metadata.name must have at most 51 characters",
                ),
                # And found in a Service of that name, a label of DNS-1035; of one node, any name will do.
                rule(
                    "self.spec.nodes == 1 || self.metadata.name.matches('^[a-z][^.]*$')",
                    "with more than one node, metadata.name must begin with a letter and have no dot",
                ),
            ]
        }
    )

    spec: FineTuneJobSpec
    status: FineTuneJobStatus = FineTuneJobStatus()
