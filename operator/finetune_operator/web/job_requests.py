"""From a request for a training to the FineTuneJob that it stands for. Pure.

The flat names are those of trainers' command lines; what is left out has the default of the FineTuneJob. `spec` is the
FineTuneJob's own, for all that has no flat name.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from finetune_operator.core.cost import CPU, GPU_TYPE_LABEL
from finetune_operator.core.decimals import BoundedDecimal, decimal_text
from finetune_operator.core.job_texts import (
    VOLUME,
    NoHubModel,
    NoVolumePath,
    base_model_of,
    family_of,
    put_gpus,
    volume_of,
)
from finetune_operator.resources.common import ModelName, ShortText
from finetune_operator.resources.dataset import STORED_PATH, Dataset, DatasetFormat, Ratings, StoredPath
from finetune_operator.resources.finetunejob import Backend, Method
from finetune_operator.resources.training import Lora, Training
from finetune_operator.web.dataset_schemas import FORMATS, FormatName
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN

Spec = dict[str, Any]

UPLOAD_PREFIX = "file-"
LABEL_VALUE = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
MAX_CPUS = 1024
OWN_MEMBERS = frozenset({"namespace", "name", "spec", "start"})
"""What goes with both forms; `start` is of one interface only."""
METHODS: dict[str, Method] = {method.lower(): method for method in Method}
BACKENDS: dict[str, Backend] = {backend.lower(): backend for backend in Backend}
_TRAINING, _LORA, _RATINGS = Training(), Lora(), Ratings()
_DATASET = Dataset(ratings=_RATINGS)

# Where each flat name is in the spec.
PLACES: dict[str, tuple[str, ...]] = {
    "model": ("model",),
    "num_epochs": ("training", "epochs"),
    "max_steps": ("training", "maxSteps"),
    "batch_size": ("training", "batchSize"),
    "learning_rate": ("training", "learningRate"),
    "max_seq_length": ("training", "maxSeqLength"),
    "quantization": ("training", "quantization"),
    "gradient_checkpointing": ("training", "gradientCheckpointing"),
    "seed": ("training", "seed"),
    "dpo_beta": ("training", "dpoBeta"),
    "lora_r": ("lora", "r"),
    "lora_alpha": ("lora", "alpha"),
    "lora_dropout": ("lora", "dropout"),
    "philosopher": ("dataset", "ratings", "philosopher"),
    "domain": ("dataset", "ratings", "domain"),
    "task_type": ("dataset", "ratings", "taskType"),
    "min_rating": ("dataset", "ratings", "minRating"),
    "gold_star_only": ("dataset", "ratings", "goldStarOnly"),
    "limit": ("dataset", "ratings", "limit"),
    "ratings_claim": ("dataset", "ratings", "claimName"),
    "test_fraction": ("dataset", "testFraction"),
    "min_examples": ("dataset", "minExamples"),
    "min_rating_difference": ("dataset", "minRatingDifference"),
    "min_confidence_diff": ("dataset", "minConfidenceDiff"),
    "openai": ("openai",),
    "max_cost": ("budget", "maxCost"),
    "currency": ("budget", "currency"),
    "gpu_type": ("scheduling", "nodeSelector", GPU_TYPE_LABEL),
    "cpus": ("resources", "requests", CPU),
}
RATINGS_MEMBERS = frozenset(name for name, place in PLACES.items() if place[:2] == ("dataset", "ratings"))
BASE_MODEL_FORMS = (
    "write <owner>/<name>[@<revision>] for a model of the hub, volume://<claim>/<path> for one on a volume, or "
    '{"name": ..., "source": ...} as a FineTuneJob has it'
)


class WrongRequest(ValueError):
    """No FineTuneJob can be made of it; the text names the member and says what to write."""


class ApiVolumes(NamedTuple):
    """Claims of the volumes that the api mounts, for jobs of its own namespace; None where there is none."""

    namespace: str
    datasets: str | None = None
    """With nothing but exported datasets."""
    ratings: str | None = None
    """Of an SQLite ratings database."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Number = Annotated[BoundedDecimal, Field(ge=0)]
Share = Annotated[BoundedDecimal, Field(ge=0, le=1)]


class BudgetRequest(BaseModel):
    """What a training may cost from now on."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    max_cost: Annotated[BoundedDecimal, Field(gt=0)] | None
    """Above what is spent, a training goes on that was stopped for its budget; null is no budget."""
    currency: Annotated[str, Field(min_length=1, max_length=16)] = "USD"
    """That of the installation's prices."""


class JobRequest(BaseModel):
    """What to train: flat members, or `spec` as a FineTuneJob has it, and never both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")] | None = None
    """Where; may be left out where the api serves one namespace."""
    name: Annotated[str, Field(max_length=52, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Of the FineTuneJob; one is made up where absent."""
    spec: dict[str, JsonValue] | None = None
    """A FineTuneJob's spec in place of all members below."""
    model: ModelName | None = None
    """Family: a success creates ModelVersion `<model>-v<N>`, and the gateway answers to this name. Where absent, the
    name of the base model."""
    base_model: Annotated[str, Field(min_length=1, max_length=1024)] | dict[str, JsonValue] | None = None
    """`<owner>/<name>[@<revision>]` of the hub, `volume://<claim>/<path>`, a provider's model (backend openai), or
    spec.baseModel of a FineTuneJob."""
    method: Annotated[Literal["sft", "dpo"], BeforeValidator(_lower)] = "sft"
    """Learn from good answers, or from pairs of a better and a worse one."""
    backend: Annotated[Literal["unsloth", "huggingface", "axolotl", "openai"], BeforeValidator(_lower)] = "unsloth"
    """What runs the training."""
    openai: dict[str, JsonValue] | None = None
    """spec.openai of a FineTuneJob (backend openai)."""
    num_epochs: int = _TRAINING.epochs
    """Passes over the dataset."""
    max_steps: int | None = None
    """End after this many optimizer steps."""
    batch_size: int = _TRAINING.batch_size
    """Examples per device and step."""
    learning_rate: Number = Decimal(_TRAINING.learning_rate)
    """Peak learning rate."""
    max_seq_length: int = _TRAINING.max_seq_length
    """Longest example in tokens; longer ones are cut."""
    quantization: Literal["4bit", "8bit", "none"] = _TRAINING.quantization
    """Precision of the frozen base model; without a GPU only `none` works."""
    gradient_checkpointing: bool = _TRAINING.gradient_checkpointing
    """Trade computation for memory."""
    seed: int = _TRAINING.seed
    """Of shuffling, split and initialisation."""
    dpo_beta: Number = Decimal(_TRAINING.dpo_beta)
    """Strength of the pull towards the base model (DPO)."""
    lora_r: int = _LORA.r
    """Rank of the adapter: a higher one learns more, and takes more memory."""
    lora_alpha: int = _LORA.alpha
    """Scaling; the adapter's output is multiplied by alpha / r."""
    lora_dropout: Share = Decimal(_LORA.dropout)
    """Dropout of the adapter's input."""
    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs (`nvidia.com/gpu`) of the trainer; 0 trains on CPUs, which only quantization `none` does. Where absent: one
    for 4bit and 8bit, else none."""
    gpu_type: Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)] | None = None
    """Type of its GPUs, as the label `nvidia.com/gpu.product` of their nodes has it, such as NVIDIA-L4; any where
    absent."""
    cpus: Annotated[BoundedDecimal, Field(gt=0, le=MAX_CPUS)] | None = None
    """CPU cores that are reserved for the trainer; without a GPU, its time and cost follow from them."""
    dataset_path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """`volume://<claim>/<path>`, `s3://<bucket>/<key>`, `dataset_path` of an exported dataset, or
    `file-<digest>/data.jsonl` of an uploaded file; ratings are exported where absent."""
    validation_path: StoredPath | None = None
    """What to evaluate by, of another exported dataset or uploaded file; rows are held out where absent."""
    format: FormatName = "chatml"
    """Of the records at `dataset_path`, or that ratings are exported as."""
    philosopher: ShortText | None = None
    """Only judgements of this person."""
    domain: ShortText | None = None
    """Only this domain."""
    task_type: ShortText | None = None
    """Only this type of task."""
    min_rating: int = _RATINGS.min_rating
    """Lowest rating that is taken (SFT)."""
    gold_star_only: bool = _RATINGS.gold_star_only
    """Only rows with is_gold_star and use_as_sample_response (SFT)."""
    limit: int | None = None
    """Take at most this many ratings, the newest first."""
    ratings_claim: Annotated[str, Field(max_length=253, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Volume of an SQLite ratings database; where absent, the one that the api reads them from."""
    test_fraction: Share = Decimal(_DATASET.test_fraction)
    """Share of prompts that is held out for evaluation."""
    min_examples: int = _DATASET.min_examples
    """Refuse to train on fewer rows than this."""
    min_rating_difference: int | None = None
    """How many points better the chosen answer of a pair must be rated (DPO); 1 where absent."""
    min_confidence_diff: Share | None = None
    """The same as a share of the scale from 1 to 5: 0.5 are two points."""

    serve: bool = False
    """Load the version beside those that answer once it is trained, so that it can be asked and compared; else it is
    only registered. A provider's models answer there."""
    max_cost: Annotated[BoundedDecimal, Field(gt=0)] | None = None
    """What it may cost: it does not begin if it costs more at the least, and is suspended when this is spent."""
    currency: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    """Of `max_cost`, USD where absent; that of the installation's prices."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        flat = sorted(self.model_fields_set - OWN_MEMBERS)
        if self.spec is not None and flat:
            raise ValueError(f"send either `spec` or flat members, not both: remove {', '.join(flat)}")
        if self.spec is None and self.base_model is None:
            raise ValueError("base_model must be set, or `spec` as a FineTuneJob has it")
        if self.gpus == 0 and self.needs_gpu:
            raise ValueError(
                f"quantization {self.quantization} needs a GPU: set quantization none, or gpus to 1 or more"
            )
        if self.gpu_type is not None and not (self.needs_gpu if self.gpus is None else self.gpus):
            raise ValueError("gpu_type is of a GPU, and none is asked for: set gpus to 1 or more, or remove gpu_type")
        if self.max_cost is None and self.currency is not None:
            raise ValueError("currency is of max_cost: set that, too, or remove currency")
        if self.min_rating_difference is not None and self.min_confidence_diff is not None:
            raise ValueError("set one of min_rating_difference and min_confidence_diff, not both")
        filters = sorted(self.model_fields_set & RATINGS_MEMBERS)
        if self.dataset_path is not None and filters:
            raise ValueError(f"{', '.join(filters)} choose ratings, which dataset_path replaces: remove one of them")
        if self.validation_path is not None and not re.fullmatch(STORED_PATH, self.dataset_path or ""):
            raise ValueError("validation_path goes with a dataset_path of an exported dataset or an uploaded file")
        return self

    @property
    def needs_gpu(self) -> bool:
        """A provider has its own."""
        return self.spec is None and self.quantization != "none" and self.backend != "openai"


def spec_of(request: JobRequest, namespace: str, volumes: ApiVolumes | None) -> Spec:
    """The FineTuneJob's spec with what was asked for, and nothing that has a default. Raises `WrongRequest`."""
    if request.spec is not None:
        return dict(request.spec)
    spec: Spec = {"model": request.model or _family(request), "baseModel": _base_model(request)}
    for name, place in PLACES.items():
        value = getattr(request, name)
        if name in request.model_fields_set and value is not None:
            _put(spec, place, decimal_text(value) if isinstance(value, Decimal) else value)
    if "method" in request.model_fields_set:
        spec["method"] = METHODS[request.method].value
    if "backend" in request.model_fields_set:
        spec["backend"] = BACKENDS[request.backend].value
    put_gpus(spec, request.gpus, needs_gpu=request.needs_gpu)
    if "format" in request.model_fields_set:
        _put(spec, ("dataset", "format"), _format(request))
    if request.dataset_path is not None:
        spec["dataset"] = spec.get("dataset", {}) | source_of(
            request.dataset_path, namespace, volumes, request.validation_path
        )
    elif "dataset" in spec:
        spec["dataset"].setdefault("ratings", {})
    if request.dataset_path is None and volumes is not None and volumes.ratings and volumes.namespace == namespace:
        spec.setdefault("dataset", {}).setdefault("ratings", {}).setdefault("claimName", volumes.ratings)
    if request.serve and request.backend != "openai":
        spec["serving"] = {}
    return spec


def _family(request: JobRequest) -> str:
    given = request.base_model
    name = given if isinstance(given, str) else (given or {}).get("name")
    family = family_of(name) if isinstance(name, str) else ""
    if not family:
        raise WrongRequest("model: base_model has no name to derive it from; set it")
    return family


def _put(spec: Spec, place: tuple[str, ...], value: object) -> None:
    for part in place[:-1]:
        spec = spec.setdefault(part, {})
    spec[place[-1]] = value


def _format(request: JobRequest) -> str:
    name = FORMATS[request.format]
    if name not in set(DatasetFormat):
        readable = ", ".join(sorted(short for short, long in FORMATS.items() if long in set(DatasetFormat)))
        raise WrongRequest(f"format: a training reads {readable}; pairs (method dpo) need no format")
    return name


def _base_model(request: JobRequest) -> Spec:
    given = request.base_model
    if not isinstance(given, str):
        return dict(given or {})
    try:
        return base_model_of(given, of_provider=request.backend == "openai")
    except NoVolumePath:
        raise _no_volume_path("base_model", given) from None
    except NoHubModel:
        raise WrongRequest(f"base_model: {BASE_MODEL_FORMS}") from None


def source_of(path: str, namespace: str, volumes: ApiVolumes | None, validation_path: str | None = None) -> Spec:
    """Where the rows of a `dataset_path` are, as a spec's dataset has it. Raises `WrongRequest`."""
    if path.startswith("s3://"):
        return {"s3": {"url": path}}
    if path.startswith(VOLUME):
        try:
            return {"volume": volume_of(path)}
        except NoVolumePath:
            raise _no_volume_path("dataset_path", path) from None
    is_exported = not path.startswith(UPLOAD_PREFIX) and validation_path is None
    if is_exported and volumes is not None and volumes.datasets and volumes.namespace == namespace:
        return {"volume": {"claimName": volumes.datasets, "path": path}}
    if not re.fullmatch(STORED_PATH, path):
        raise WrongRequest(
            "dataset_path: write volume://<claim>/<path>, s3://<bucket>/<key>, or <id>/<file> of what this api keeps"
        )
    validation = {"validationPath": validation_path} if validation_path else {}
    return {"stored": {"path": path, **validation}}


def _no_volume_path(member: str, text: str) -> WrongRequest:
    return WrongRequest(f"{member}: write volume://<claim>/<path>, not {text}")
