"""What the processes of the product tell each other: files, exit codes, messages and paths.

The operator writes a `TrainingConfig` into the pod's annotation, which the downward API shows as a file. The `prepare`
container turns ratings into a dataset and leaves a `DatasetReport`; the trainer posts `Progress`, publishes an adapter
with an `AdapterManifest` and ends with a `TrainingResult` or a `Failure` in its termination message. The server image
starts from an `AdapterList`. Only this module and `core` are installed in the trainer and the server image.
"""

from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

CONFIG_ANNOTATION = "finetune.dev/training-config"
CONFIG_FILE = "/etc/finetune/training.json"
ADAPTERS_FILE = "/etc/finetune/adapters.json"
MODELS_ROOT = "/models"
ARTIFACTS_ROOT = "/artifacts"
DATASETS_ROOT = "/datasets"
RATINGS_ROOT = "/ratings"
TERMINATION_MESSAGE_FILE = "/dev/termination-log"
TERMINATION_MESSAGE_MAX_BYTES = 4096

PREPARE_CONTAINER = "prepare"
TRAINER_CONTAINER = "trainer"
ENGINE_CONTAINER = "vllm"
ENGINE_PORT = 8000

# Environment variables, all filled by secretKeyRef.
DATABASE_URL_VARIABLE = "FINETUNE_DATABASE_URL"
INTERNAL_TOKEN_VARIABLE = "FINETUNE_INTERNAL_TOKEN"  # noqa: S105 - the variable's name, not a secret
ENGINE_API_KEY_VARIABLE = "VLLM_API_KEY"

PROGRESS_PATH = "/internal/v1/progress"
SAMPLES_PATH = "/internal/v1/samples"
TALLY_PATH = "/internal/v1/abtests/{uid}/tally"
SAMPLES_MAX_PER_BATCH = 1000

# Header of a load request by which the server's guard knows what the operator expects to find in the directory.
ADAPTER_DIGEST_HEADER = "x-finetune-adapter-digest"


class Message(BaseModel):
    """Base of everything here: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class FailureReason(StrEnum):
    """Why a training ended for good. Those that a container can find out itself have an exit code in `EXIT_CODES`."""

    INVALID_CONFIG = "InvalidConfig"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_EMPTY = "DatasetEmpty"
    DATASET_TOO_SMALL = "DatasetTooSmall"
    BASE_MODEL_NOT_FOUND = "BaseModelNotFound"
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    OUT_OF_MEMORY = "OutOfMemory"
    ARTIFACT_INVALID = "ArtifactInvalid"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    TRAINER_FAILED = "TrainerFailed"
    NAME_TAKEN = "NameTaken"


EXIT_CODES: dict[FailureReason, int] = {
    FailureReason.INVALID_CONFIG: 42,
    FailureReason.DATASET_INVALID: 43,
    FailureReason.DATASET_EMPTY: 44,
    FailureReason.DATASET_TOO_SMALL: 45,
    FailureReason.BASE_MODEL_NOT_FOUND: 46,
    FailureReason.DATABASE_UNREACHABLE: 47,
    FailureReason.OUT_OF_MEMORY: 48,
    FailureReason.ARTIFACT_INVALID: 49,
}
SIGKILL_EXIT_CODE = 137


class Failure(Message):
    """Termination message of a container that gave up: the fact, and what the user can change."""

    kind: Literal["Failure"] = "Failure"
    reason: FailureReason
    message: str
    remedy: str


class JobIdentity(Message):
    """Which FineTuneJob this is; the uid tells a re-created one of the same name apart."""

    namespace: str
    name: str
    uid: str


class RatingsSource(Message):
    """Rows of `ml_analysis_rating`; the database's URL comes in `DATABASE_URL_VARIABLE`."""

    kind: Literal["Ratings"] = "Ratings"
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None
    min_rating: int = 4
    gold_star_only: bool = True
    limit: int | None = None


class VolumeSource(Message):
    """One JSONL file below `DATASETS_ROOT`, each line a record of the chosen format."""

    kind: Literal["Volume"] = "Volume"
    path: str


class DatasetConfig(Message):
    """How the prepare container makes `train.jsonl` and `test.jsonl`.

    Whatever `format` the source has, their lines are TRL's conversational records: `{"messages": [...]}` for SFT,
    `{"prompt": [...], "chosen": [...], "rejected": [...]}` for DPO.
    """

    source: Annotated[RatingsSource | VolumeSource, Field(discriminator="kind")]
    format: Literal["ChatML", "Alpaca", "OpenAI", "DPO"] = "ChatML"
    test_fraction: float = 0.1
    min_examples: int = 1
    min_prompt_characters: int = 10
    min_response_characters: int = 20
    min_rating_difference: int = 1
    seed: int = 42
    database_timeout_seconds: float = 60.0


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


class TrainingParameters(Message):
    """TRL's training parameters; `max_steps` ends the training early where it is set."""

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
    seed: int = 42


class TrainingConfig(Message):
    """Everything that a training pod knows about its job."""

    job: JobIdentity
    model: str
    method: Literal["SFT", "DPO"]
    backend: Literal["Unsloth", "HuggingFace"]
    base_model_name: str
    base_model_path: str
    dataset: DatasetConfig
    lora: LoraConfig
    training: TrainingParameters
    progress_url: str | None = None
    progress_interval_seconds: float = 2.0


class JobPaths:
    """Where one job keeps its things on the artifacts volume; the uid keeps re-created jobs apart."""

    def __init__(self, namespace: str, model: str, job_uid: str, root: str = ARTIFACTS_ROOT) -> None:
        self.directory = PurePosixPath(root) / namespace / model / job_uid

    @property
    def lock(self) -> PurePosixPath:
        return self.directory / "lock"

    @property
    def dataset(self) -> PurePosixPath:
        return self.directory / "dataset"

    @property
    def train_rows(self) -> PurePosixPath:
        return self.dataset / "train.jsonl"

    @property
    def test_rows(self) -> PurePosixPath:
        return self.dataset / "test.jsonl"

    @property
    def dataset_report(self) -> PurePosixPath:
        return self.dataset / "report.json"

    @property
    def checkpoints(self) -> PurePosixPath:
        return self.directory / "checkpoints"

    @property
    def adapter(self) -> PurePosixPath:
        return self.directory / "adapter"

    @property
    def result(self) -> PurePosixPath:
        return self.directory / "result.json"

    @staticmethod
    def of(config: TrainingConfig, root: str = ARTIFACTS_ROOT) -> "JobPaths":
        return JobPaths(config.job.namespace, config.model, config.job.uid, root)


def adapter_uri(claim_name: str, namespace: str, model: str, job_uid: str) -> str:
    """The one place that knows how an adapter's URI follows from the job that made it."""
    return f"volume://{claim_name}/{namespace}/{model}/{job_uid}/adapter"


class DatasetReport(Message):
    """What the prepare container made, written last: its existence proves that the dataset is complete."""

    rows: int
    test_rows: int
    digest: str
    dropped: dict[str, int] = {}
    warnings: tuple[str, ...] = ()


class Progress(Message):
    """One measurement of a running training; `time` is UTC."""

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
    time: datetime

    @property
    def percent(self) -> int:
        """Whole percent done, 100 only for the last step."""
        return min(100, self.step * 100 // max(1, self.total_steps))


class LatestProgress(RootModel[dict[str, Progress]]):
    """The newest progress of each asked job by uid, `best_loss` being that of the whole series."""

    model_config = ConfigDict(frozen=True)


class Sample(Message):
    """One request that an arm of an ABTest answered, or failed to; `ab_test` is the ABTest's uid.

    `request_id` makes it count once however often it is sent. `status` is the HTTP status the client got.
    """

    ab_test: Annotated[str, Field(min_length=1, max_length=64)]
    arm: Literal["baseline", "candidate"]
    served_name: Annotated[str, Field(min_length=1, max_length=128)]
    status: Annotated[int, Field(ge=100, le=599)]
    latency_ms: Annotated[int, Field(ge=0, le=2_147_483_647)]
    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    time: AwareDatetime


class SampleBatch(Message):
    """Body of `SAMPLES_PATH`."""

    samples: Annotated[tuple[Sample, ...], Field(max_length=SAMPLES_MAX_PER_BATCH)]


class VoteCounts(Message):
    """Blind votes that came before the verdict; `fine_tuned` speaks of the candidate, `base` of the baseline."""

    fine_tuned: int = 0
    base: int = 0
    tie: int = 0

    @property
    def total(self) -> int:
        return self.fine_tuned + self.base + self.tie

    @property
    def win_rate(self) -> float | None:
        """The candidate's share, a tie counting half; None before the first vote."""
        return (self.fine_tuned + self.tie / 2) / self.total if self.total else None


class ArmTally(Message):
    """What production traffic showed of one arm: `errors` of `samples` had a 5xx status, latency is of the others."""

    samples: int = 0
    errors: int = 0
    mean_latency_ms: int | None = None


class ArmTallies(Message):
    """Both arms."""

    baseline: ArmTally = ArmTally()
    candidate: ArmTally = ArmTally()


class AbTestTally(Message):
    """Answer of `TALLY_PATH`."""

    votes: VoteCounts = VoteCounts()
    arms: ArmTallies = ArmTallies()


class AdapterFile(Message):
    """One file of an adapter directory."""

    name: str
    size_bytes: int
    sha256: str


class AdapterManifest(Message):
    """`manifest.json` beside the adapter's files, written before the directory gets its final name."""

    base_model_name: str
    rank: int
    files: tuple[AdapterFile, ...]
    digest: str


class TrainingResult(Message):
    """Termination message of a trainer that succeeded, and `result.json` on the volume."""

    kind: Literal["TrainingResult"] = "TrainingResult"
    adapter_digest: str
    final_loss: float | None
    best_loss: float | None
    test_loss: float | None
    base_test_loss: float | None
    steps: int
    epochs: float
    train_seconds: float
    tokens: int | None = None
    dataset: DatasetReport
    versions: dict[str, str] = {}


class Adapter(Message):
    """One adapter as the engine knows it; `name` is the version's immutable served name."""

    name: str
    path: str
    digest: str


class AdapterList(Message):
    """`ADAPTERS_FILE`: what a starting server loads before it becomes Ready."""

    base_model_name: str
    max_lora_rank: int
    adapters: tuple[Adapter, ...] = ()
