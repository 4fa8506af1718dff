"""What a training pod is told, what it reports while it trains, and how it ends."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from finetune_operator.contract.artifacts import Artifact, Output, OutputError
from finetune_operator.contract.base import Message, Report
from finetune_operator.contract.base_models import HubModel
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport
from finetune_operator.contract.evaluation import EvaluationConfig, EvaluationReport
from finetune_operator.contract.remote import RemoteConfig, RemoteModel
from finetune_operator.contract.tracking import TrackingConfig

PROGRESS_MAX_PER_BATCH = 500


class JobIdentity(Message):
    """Which FineTuneJob or BatchInference this is; the uid tells a re-created one of the same name apart."""

    namespace: str
    name: str
    uid: str


class LoraConfig(Message):
    """PEFT's LoRA parameters."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class EarlyStopping(Message):
    """End once `patience` evaluations in a row were not better than the best by more than `min_delta`."""

    patience: int
    min_delta: float = 0.0


class TrainingParameters(Message):
    """TRL's training parameters; `max_steps` ends the training early where it is set.

    `lr_scheduler` and `optimizer` are Transformers' names, `arguments` further arguments of TRL's config by their own
    names, as text.
    """

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 4
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    max_seq_length: int = 2048
    quantization: Literal["4bit", "8bit", "none"] = "4bit"
    gradient_checkpointing: bool = True
    save_steps: int = 50
    dpo_beta: float = 0.1
    packing: bool = False
    eval_steps: int | None = None
    early_stopping: EarlyStopping | None = None
    lr_scheduler: str = "linear"
    warmup_ratio: float | None = None
    optimizer: str | None = None
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    neftune_noise_alpha: float | None = None
    arguments: dict[str, str] = {}
    seed: int = 42


class StartingAdapter(Message):
    """The published adapter that a training goes on from; `path` is where the trainer sees its directory."""

    model_version: str
    path: str
    digest: str


class TrainingConfig(Message):
    """Everything that a training pod knows about its job; `remote` instead of a path where a provider trains.

    `processes` are those of all nodes together, each with a copy of the model; one where absent.
    """

    job: JobIdentity
    model: str
    method: Literal["SFT", "DPO"]
    backend: Literal["Unsloth", "HuggingFace", "Axolotl", "OpenAI"]
    base_model_name: str
    base_model_path: str = ""
    base_model_hub: HubModel | None = None
    remote: RemoteConfig | None = None
    dataset: DatasetConfig
    lora: LoraConfig
    training: TrainingParameters
    evaluation: EvaluationConfig | None = None
    outputs: tuple[Output, ...] = ()
    init_from: StartingAdapter | None = None
    report_to: TrackingConfig | None = None
    gpu_type: str | None = None
    processes: int | None = None
    progress_url: str | None = None
    progress_interval_seconds: float = 2.0


class Progress(Report):
    """One measurement of a running training, or of a batch inference, whose steps are its rows; times are UTC.

    `tokens` are those seen since the training began, earlier attempts included; `tokens_per_second` is of the steps
    since the measurement before. `gpu_memory_bytes` is the most that was ever reserved. The checkpoint is the newest
    that is whole: from there another attempt goes on.
    """

    job: JobIdentity
    attempt: str
    step: int
    total_steps: int
    epoch: float
    total_epochs: float
    loss: float | None = None
    best_loss: float | None = None
    learning_rate: float | None = None
    eta_seconds: int | None = None
    eval_loss: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    gpu_memory_bytes: int | None = None
    checkpoint_step: int | None = None
    checkpoint_time: datetime | None = None
    failed_rows: int | None = None
    time: datetime

    @property
    def percent(self) -> int:
        """Whole percent done, 100 only for the last step."""
        return min(100, self.step * 100 // max(1, self.total_steps))


class ProgressBatch(Report):
    """Body of `PROGRESS_BATCH_PATH`: what gathered while the api was away, in the order of time."""

    points: Annotated[tuple[Progress, ...], Field(max_length=PROGRESS_MAX_PER_BATCH)]


class LatestProgress(RootModel[dict[str, Progress]]):
    """The newest progress of each asked job by uid, `best_loss` being that of the whole series."""

    model_config = ConfigDict(frozen=True)


class LostCheckpoint(Message):
    """The best evaluation's checkpoint could not be published, since it is damaged or gone; another state was.

    Losses are those of the held-out rows; the published state's is unknown where it was never evaluated.
    """

    step: int
    eval_loss: float
    published_step: int
    published_eval_loss: float | None = None


class TrainingResult(Message):
    """Termination message of a trainer that succeeded, and `result.json` on the volume.

    What came out is an adapter on the volume, or a model at a provider.
    """

    kind: Literal["TrainingResult"] = "TrainingResult"
    adapter_digest: str | None = None
    merged_digest: str | None = None
    remote: RemoteModel | None = None
    final_loss: float | None
    best_loss: float | None
    test_loss: float | None
    base_test_loss: float | None
    steps: int
    epochs: float
    train_seconds: float
    tokens: int | None = None
    dataset: DatasetReport
    base_model_commit: str | None = None
    evaluation: EvaluationReport | None = None
    artifacts: tuple[Artifact, ...] = ()
    output_errors: tuple[OutputError, ...] = ()
    init_from: StartingAdapter | None = None
    lost_best: LostCheckpoint | None = None
    versions: dict[str, str] = {}
