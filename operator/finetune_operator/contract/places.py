"""Where the processes find each other's files, and the names of containers, variables and paths."""

from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote

from finetune_operator.contract.training import TrainingConfig

CONFIG_ANNOTATION = "finetune.dev/training-config"
CONFIG_FILE = "/etc/finetune/training.json"
EVALUATION_CONFIG_ANNOTATION = "finetune.dev/evaluation-config"
EVALUATION_CONFIG_FILE = "/etc/finetune/evaluation.json"
BATCH_CONFIG_ANNOTATION = "finetune.dev/batch-config"
BATCH_CONFIG_FILE = "/etc/finetune/batch.json"
ADAPTERS_FILE = "/etc/finetune/adapters.json"
MERGED_FILE = "/etc/finetune/merged.json"
MODELS_ROOT = "/models"
ARTIFACTS_ROOT = "/artifacts"
DATASETS_ROOT = "/datasets"
RATINGS_ROOT = "/ratings"
TERMINATION_MESSAGE_FILE = "/dev/termination-log"
TERMINATION_MESSAGE_MAX_BYTES = 4096
PREPARE_CONTAINER: Literal["prepare"] = "prepare"
FETCH_CONTAINER = "fetch"
TRAINER_CONTAINER: Literal["trainer"] = "trainer"
ENGINE_CONTAINER = "vllm"
EVALUATOR_CONTAINER = "evaluator"
BATCH_CONTAINER = "batch"
ENGINE_PORT = 8000
# Of torchrun's list of nodes, on the first of them; its other ports are chosen by the kernel.
RENDEZVOUS_PORT = 29400
# Environment variables, all filled by secretKeyRef.
DATABASE_URL_VARIABLE = "FINETUNE_DATABASE_URL"
STORE_CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
INTERNAL_TOKEN_VARIABLE = "FINETUNE_INTERNAL_TOKEN"  # noqa: S105 - the variable's name, not a secret
ENGINE_API_KEY_VARIABLE = "VLLM_API_KEY"
ENGINE_MEMORY_PATH = "/v1/engine/memory"
# Of an engine's answer: the pod that gives it.
ENGINE_POD_HEADER = "x-finetune-pod"
HUB_TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the variable's name, not a secret
PROVIDER_KEY_VARIABLE = "FINETUNE_PROVIDER_KEY"
TRACKING_SECRET_VARIABLES = ("MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")
# What a training's containers may know, and no log may say.
SECRET_VARIABLES = (
    DATABASE_URL_VARIABLE,
    *STORE_CREDENTIAL_VARIABLES,
    INTERNAL_TOKEN_VARIABLE,
    HUB_TOKEN_VARIABLE,
    PROVIDER_KEY_VARIABLE,
    *TRACKING_SECRET_VARIABLES,
)
# Filled from the label by which the Job controller marks its pods.
JOB_VARIABLE = "FINETUNE_JOB"
# What is in a job's directory.
ADAPTER_NAME = "adapter"
CHECKPOINTS_NAME = "checkpoints"
DATASET_NAME = "dataset"
LOG_NAME = "train.log"
OLDER_LOG_NAME = "train.log.1"
MERGED_NAME = "merged"
GGUF_F16_NAME = "model-f16.gguf"
GGUF_Q8_NAME = "model-q8_0.gguf"
MODELFILE_NAME = "Modelfile"
SCRIPT_NAME = "train_unsloth.py"
BATCHES_NAME = "batches"
PROGRESS_PATH = "/internal/v1/progress"
PROGRESS_BATCH_PATH = f"{PROGRESS_PATH}/batch"
PROGRESS_LOG_PATH = f"{PROGRESS_PATH}/log"
SAMPLES_PATH = "/internal/v1/samples"
USAGE_PATH = "/internal/v1/usage"
TALLY_PATH = "/internal/v1/abtests/{uid}/tally"
VERSION_RATINGS_PATH = "/internal/v1/versions/{uid}/ratings"
PAIRS_PATH = "/internal/v1/abtests/{uid}/pairs"
STORED_FILE_PATH = "/internal/v1/datasets/{namespace}/{id}/{file}"
BATCH_ANSWERS_PATH = "/internal/v1/batches/{uid}/answers"
EVALUATION_PATH = "/internal/v1/evaluations/{id}"


class JobPaths:
    """Where one job keeps its things on the artifacts volume; the uid keeps re-created jobs apart."""

    def __init__(self, namespace: str, model: str, job_uid: str, root: str = ARTIFACTS_ROOT) -> None:
        self.directory = PurePosixPath(root) / namespace / model / job_uid

    @property
    def lock(self) -> PurePosixPath:
        return self.directory / "lock"

    @property
    def dataset(self) -> PurePosixPath:
        return self.directory / DATASET_NAME

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
    def base_model(self) -> PurePosixPath:
        """Which commit of the hub's base model the job trains on."""
        return self.directory / "base-model.json"

    @property
    def checkpoints(self) -> PurePosixPath:
        return self.directory / CHECKPOINTS_NAME

    @property
    def tensorboard(self) -> PurePosixPath:
        return self.directory / "tensorboard"

    @property
    def mlflow_run(self) -> PurePosixPath:
        """The id of the run at MLflow, which the next attempt continues."""
        return self.directory / "mlflow-run-id"

    @property
    def adapter(self) -> PurePosixPath:
        return self.directory / ADAPTER_NAME

    @property
    def merged(self) -> PurePosixPath:
        return self.directory / MERGED_NAME

    @property
    def gguf_f16(self) -> PurePosixPath:
        return self.directory / GGUF_F16_NAME

    @property
    def gguf_q8(self) -> PurePosixPath:
        return self.directory / GGUF_Q8_NAME

    @property
    def modelfile(self) -> PurePosixPath:
        return self.directory / MODELFILE_NAME

    @property
    def script(self) -> PurePosixPath:
        return self.directory / SCRIPT_NAME

    @property
    def log(self) -> PurePosixPath:
        """What the trainer wrote to its standard output, all attempts one after the other."""
        return self.directory / LOG_NAME

    @property
    def artifacts(self) -> PurePosixPath:
        """The listing of what the job left."""
        return self.directory / "artifacts.json"

    @property
    def evaluation(self) -> PurePosixPath:
        """Directory of what an evaluation says of itself while it runs; gone with its end."""
        return self.directory / "evaluation"

    @property
    def trained(self) -> PurePosixPath:
        """The result without its evaluation and its outputs, as long as they are being made."""
        return self.directory / "trained.json"

    @property
    def result(self) -> PurePosixPath:
        return self.directory / "result.json"

    @property
    def remote(self) -> PurePosixPath:
        """What was made at a provider for this job."""
        return self.directory / "remote.json"

    @staticmethod
    def of(config: TrainingConfig, root: str = ARTIFACTS_ROOT) -> "JobPaths":
        return JobPaths(config.job.namespace, config.model, config.job.uid, root)


class BatchPaths:
    """Where one batch inference keeps its things on the artifacts volume; the uid keeps re-created ones apart."""

    def __init__(self, namespace: str, uid: str, root: str = ARTIFACTS_ROOT) -> None:
        self.directory = PurePosixPath(root) / namespace / BATCHES_NAME / uid

    @property
    def lock(self) -> PurePosixPath:
        return self.directory / "lock"

    @property
    def requests(self) -> PurePosixPath:
        """What is asked, a line a row; whole once it has this name."""
        return self.directory / "requests.jsonl"

    @property
    def manifest(self) -> PurePosixPath:
        return self.directory / "manifest.json"

    def answers(self, served_name: str) -> PurePosixPath:
        """The results of one model; a name of the hub has a slash."""
        return self.directory / "results" / f"{quote(served_name, safe='')}.jsonl"

    def partial_answers(self, served_name: str) -> PurePosixPath:
        """Those so far, in the order in which they came."""
        return self.directory / f"{quote(served_name, safe='')}.partial.jsonl"


def batch_uri(claim_name: str, namespace: str, uid: str) -> str:
    """The directory of `BatchPaths` as a user finds it."""
    return f"volume://{claim_name}/{namespace}/{BATCHES_NAME}/{uid}"


def hub_snapshots(model_id: str, root: str = MODELS_ROOT) -> str:
    """Where the snapshots of a base model of the hub are, each in a directory named after its commit."""
    return f"{root}/hub/{model_id}"


def adapter_uri(claim_name: str, namespace: str, model: str, job_uid: str) -> str:
    """The one place that knows how an adapter's URI follows from the job that made it."""
    return f"volume://{claim_name}/{namespace}/{model}/{job_uid}/adapter"


def merged_beside(adapter: PurePosixPath) -> PurePosixPath:
    """Where the merged weights of an adapter are, as `JobPaths` has both."""
    return adapter.with_name(MERGED_NAME)


def provider_uri(model: str) -> str:
    """The URI of a model that lives at its provider."""
    return f"openai://{model}"
