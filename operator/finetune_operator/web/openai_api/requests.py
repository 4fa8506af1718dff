"""From OpenAI's words for a training to ours. Pure."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.decimals import BoundedDecimal
from finetune_operator.core.job_texts import NoHubModel, NoVolumePath, base_model_of, family_named, family_of
from finetune_operator.resources.training import Training
from finetune_operator.store.exported_datasets import DATASET_ID
from finetune_operator.web.ids import NAMESPACE_PATTERN
from finetune_operator.web.job_requests import JobRequest, WrongRequest

RATINGS = "ratings"
FILE_PREFIX = "file-"
PUBLIC_FILE_ID = rf"{FILE_PREFIX}{NAMESPACE_PATTERN}\.[0-9a-f]{{32}}"
SENT_AS = {"base_model": "model", "dataset_path": "training_file", "validation_path": "validation_file"}
HYPERPARAMETERS = {
    "num_epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate_multiplier",
    "dpo_beta": "beta",
}
"""Members of a `JobRequest` by OpenAI's words for them."""
LEARNING_RATE = Decimal(Training().learning_rate)

Auto = Literal["auto"]
Count = Annotated[int, Field(strict=True, ge=1)] | Auto | None
Factor = Annotated[BoundedDecimal, Field(gt=0)] | Auto | None
MetadataKey = Annotated[str, Field(max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Hyperparameters(_Body):
    """`auto` and what is left out are the defaults of a FineTuneJob."""

    n_epochs: Count = None
    batch_size: Count = None
    learning_rate_multiplier: Factor = None
    """Of the learning rate 2e-4."""
    beta: Factor = None
    """Strength of the pull towards the base model (dpo)."""


class Configuration(_Body):
    """Of one method."""

    hyperparameters: Hyperparameters | None = None


class TrainingMethod(_Body):
    """How to learn: from answers, or from pairs of a better and a worse one."""

    type: Literal["supervised", "dpo"]
    supervised: Configuration | None = None
    dpo: Configuration | None = None


class FineTuningRequest(_Body):
    """OpenAI's request for a training."""

    model: Annotated[str, Field(min_length=1, max_length=1024)]
    """The base model: `<owner>/<name>[@<revision>]` of the hub, or `volume://<claim>/<path>`."""
    training_file: Annotated[str, Field(min_length=1, max_length=1024)]
    """The id of a file, `ratings` to export them, the id of an exported dataset, `volume://<claim>/<path>` or
    `s3://<bucket>/<key>`."""
    validation_file: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The id of a file to evaluate by, beside a training file that is one; rows are held out of that where absent."""
    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Name of the family that the versions belong to; the base model's where absent."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    hyperparameters: Hyperparameters | None = None
    """The older place of `method`'s."""
    method: TrainingMethod | None = None
    metadata: Metadata | None = None
    integrations: tuple[JsonValue, ...] | None = None
    """Not taken: `spec.reportTo` of a FineTuneJob names trackers."""
    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")] | None = None
    """Not OpenAI's: may be left out where the api serves one namespace."""
    quantization: Literal["4bit", "8bit", "none"] | None = None
    """Not OpenAI's: how the base model is held in memory, 4bit where absent; `none` trains without a GPU, too."""


def job_request(request: FineTuningRequest) -> JobRequest:
    """Raises `WrongRequest`."""
    _require_base_model(request.model)
    if request.integrations:
        raise WrongRequest("integrations: make a FineTuneJob with spec.reportTo instead, and leave this out")
    method = request.method.type if request.method else "supervised"
    # Whoever trains by OpenAI's client asks the model by its name afterwards, without a word in between.
    flat: dict[str, Any] = {"model": family_name(request), "base_model": request.model, "serve": True}
    namespace = file_namespace(request)
    if namespace:
        flat["namespace"] = namespace
    if request.seed is not None:
        flat["seed"] = request.seed
    if request.quantization is not None:
        flat["quantization"] = request.quantization
    if method == "dpo":
        flat["method"] = "dpo"
    flat |= _hyperparameters(request) | _dataset(request.training_file, is_dpo=method == "dpo")
    if request.validation_file is not None:
        flat["validation_path"] = _stored_path(request.validation_file)
    try:
        return JobRequest.model_validate(flat)
    except ValidationError as error:
        raise WrongRequest("; ".join(map(_mistake, error.errors()))) from None


def _mistake(told: ErrorDetails) -> str:
    """One of several members together names them by itself."""
    where, what = ".".join(map(str, told["loc"])), told["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def as_sent(request: FineTuningRequest, text: str) -> tuple[str, str | None]:
    """What is said of a `JobRequest`, in the members that OpenAI's client sent; and which of them it is about."""
    method = request.method
    inner = getattr(method, method.type) if method else None
    place = f"method.{method.type}.hyperparameters" if method and inner and inner.hyperparameters else "hyperparameters"
    names = SENT_AS | {ours: f"{place}.{sent}" for ours, sent in HYPERPARAMETERS.items()}
    told = re.sub(rf"\b({'|'.join(names)})\b(?!\.)", lambda found: names[found[1]], text)
    first = re.match(r"[a-z_.]+", told)
    member = first[0] if first else ""
    return told, member if member in (*FineTuningRequest.model_fields, *names.values()) else None


def _require_base_model(text: str) -> None:
    try:
        base_model_of(text, of_provider=False)
    except NoVolumePath:
        raise WrongRequest(f"model: write volume://<claim>/<path>, not {text}") from None
    except NoHubModel:
        known = ", ".join(model.id for model in CATALOGUE)
        raise WrongRequest(
            f"model: there is no base model {text} here: write <owner>/<name>[@<revision>] for one of the hub, such as "
            f"{known}; or volume://<claim>/<path> for one on a volume"
        ) from None


def file_ids(request: FineTuningRequest) -> list[str]:
    """Those of uploaded files."""
    named = (request.training_file, request.validation_file)
    return [text for text in named if text and re.fullmatch(PUBLIC_FILE_ID, text)]


def file_namespace(request: FineTuningRequest) -> str | None:
    """Where the training is made: said, or that of its files. Raises `WrongRequest` for another one than theirs."""
    found = {text.removeprefix(FILE_PREFIX).partition(".")[0] for text in file_ids(request)}
    if request.namespace:
        found.add(request.namespace)
    if len(found) > 1:
        raise WrongRequest(f"the files and the training must be in one namespace, not in {', '.join(sorted(found))}")
    return found.pop() if found else None


def _stored_path(text: str) -> str:
    if re.fullmatch(PUBLIC_FILE_ID, text):
        return f"{FILE_PREFIX}{text.rpartition('.')[2]}/data.jsonl"
    raise WrongRequest("validation_file: send the id of a file that was uploaded (file-<namespace>.<digest>)")


def family_name(request: FineTuningRequest) -> str:
    """What the gateway answers to. Raises `WrongRequest`."""
    name = family_named(request.suffix) if request.suffix else family_of(request.model)
    if not name:
        raise WrongRequest("suffix: use letters from a to z and digits")
    return name


def _hyperparameters(request: FineTuningRequest) -> dict[str, Any]:
    configuration = getattr(request.method, request.method.type) if request.method else None
    chosen = (configuration.hyperparameters if configuration else None) or request.hyperparameters or Hyperparameters()
    values = {
        "num_epochs": chosen.n_epochs,
        "batch_size": chosen.batch_size,
        "learning_rate": _scaled(chosen.learning_rate_multiplier),
        "dpo_beta": chosen.beta,
    }
    return {name: value for name, value in values.items() if value not in (None, "auto")}


def _scaled(multiplier: Decimal | str | None) -> Decimal | None:
    return LEARNING_RATE * multiplier if isinstance(multiplier, Decimal) else None


def _dataset(training_file: str, *, is_dpo: bool) -> dict[str, Any]:
    if training_file == RATINGS:
        return {} if is_dpo else {"format": "openai"}
    if re.fullmatch(PUBLIC_FILE_ID, training_file):
        return {"dataset_path": _stored_path(training_file)} | ({} if is_dpo else {"format": "openai"})
    known = training_file.removeprefix(FILE_PREFIX)
    if re.fullmatch(DATASET_ID, known):
        # The format is the first part of a dataset's id.
        return {"dataset_path": f"{known}/train.jsonl"} | ({} if is_dpo else {"format": known.partition("-")[0]})
    return {"dataset_path": training_file} | ({} if is_dpo else {"format": "openai"})
