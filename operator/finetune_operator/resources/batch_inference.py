"""BatchInference: every row of a dataset to a served version, and to what it is compared with; the answers as files."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_operator.resources.abtest import Baseline
from finetune_operator.resources.common import (
    ApiModel,
    Conditions,
    Decimal,
    DnsLabel,
    DnsSubdomain,
    LongText,
    Resource,
    ServedName,
    Sha256,
    ShortText,
    Timestamp,
    VolumeRef,
    exactly_one,
    immutable,
    rule,
    rules,
)
from finetune_operator.resources.dataset import ObjectRef, Ratings, StoredFile

KIND = "BatchInference"
MAX_MODELS = 2
MAX_ROWS = 1_000_000
IMMUTABLE_FIELDS = (
    "modelVersion", "compareWith", "dataset", "parameters", "maxConcurrentRequests", "limit", "abTest",
    "activeDeadlineSeconds",
)  # fmt: skip


class BatchFormat(StrEnum):
    """What the rows of a file are."""

    PROMPTS = "Prompts"
    CHAT_ML = "ChatML"
    ALPACA = "Alpaca"
    OPEN_AI = "OpenAI"
    RAW_JSONL = "RawJSONL"
    INSTRUCTION = "Instruction"


class BatchDataset(ApiModel):
    """What is asked."""

    model_config = rules(exactly_one("ratings", "volume", "s3", "stored"))

    ratings: Ratings | None = None
    """The prompts of a ratings database, each once."""
    volume: VolumeRef | None = None
    """A JSONL or Parquet file on a volume."""
    s3: ObjectRef | None = None
    """A JSONL or Parquet file in an S3-compatible store."""
    stored: StoredFile | None = None
    """A file of the api, which the batch's pod fetches; no volume is needed."""
    format: BatchFormat = BatchFormat.PROMPTS
    """Format of a file's rows. Prompts have no answers: `{"prompt": "..."}`, `{"messages": [...]}`, or the lines of
    OpenAI's Batch API, of which custom_id and body.messages are read. Of the other formats, those of a FineTuneJob's
    dataset, everything before the last answer is asked."""


class Parameters(ApiModel):
    """How answers are made, as in OpenAI's API."""

    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 256
    """Longest answer in tokens."""
    temperature: Annotated[str, Field(max_length=12, pattern=r"^([01](\.[0-9]+)?|2(\.0+)?)$")] = "0"
    """From 0, which takes the likeliest token, to 2."""
    top_p: Annotated[str, Field(max_length=12, pattern=r"^(0\.[0-9]*[1-9][0-9]*|1(\.0+)?)$")] = "1"
    """Share of probability that tokens are drawn from."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """Of the random numbers; with a temperature above 0 the same seed gives about the same answers."""


class Voting(ApiModel):
    """Which ABTest gets the answers."""

    name: DnsSubdomain
    """An ABTest whose candidate is modelVersion, and whose baseline is compareWith."""
    max_pairs: Annotated[int, Field(ge=1, le=10_000)] = 200
    """So many of the rows that both have answered, the first ones."""


class BatchInferenceSpec(ApiModel):
    """Whom to ask what."""

    model_config = rules(
        *(immutable(name) for name in IMMUTABLE_FIELDS),
        rule(
            "!has(self.compareWith) || !has(self.compareWith.modelVersion) || "
            "self.compareWith.modelVersion != self.modelVersion",
            "compareWith must be another version than modelVersion",
            field_path=".compareWith",
        ),
        rule(
            "!has(self.abTest) || has(self.compareWith)",
            "abTest needs two answers to each row: set compareWith to the baseline of that ABTest",
            field_path=".abTest",
        ),
        rule(
            "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
            "a cancelled batch can't be taken up again: create a new one",
            field_path=".cancel",
        ),
    )

    model_version: DnsLabel
    """A ModelVersion that is served."""
    compare_with: Baseline | None = None
    """Who gets the same rows: the version's base model, or another ModelVersion that is served."""
    dataset: BatchDataset
    """What is asked."""
    parameters: Parameters = Parameters()
    """How answers are made."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=256)] = 8
    """Rows that are asked at once; the engine's other clients wait the longer for it."""
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = MAX_ROWS
    """Ask only the first rows, at most this many."""
    ab_test: Voting | None = None
    """After the run people vote on the pairs of answers, blind, before they are asked the ABTest's own prompts."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Give up after this time; what was answered stays on the volume."""
    suspend: bool = False
    """Stop asking until this is false again; what was answered is not asked again."""
    cancel: bool = False
    """End it for good; what was answered stays on the volume."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=60, le=31_536_000)] | None = None
    """Remove the Job and its pods this time after the end, at least a minute; the results stay."""


class BatchPhase(StrEnum):
    """For printing; conditions are the API."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class BatchProgress(ApiModel):
    """How far it is; at most one write in ten seconds. A row counts once for each model."""

    summary: ShortText = "0%"
    """Percent, for printing."""
    percent: int = 0
    """Whole percent of all rows."""
    done: int = 0
    """Rows that have their answer, or have failed."""
    total: int = 0
    """Rows to ask, of all models."""
    failed: int = 0
    """Rows that the engine would not answer."""
    eta_seconds: int | None = None
    """Seconds until the end."""
    eta: ShortText | None = None
    """The same, for printing."""
    last_update_time: Timestamp | None = None
    """When this was written."""


class ModelAnswers(ApiModel):
    """The answers of one model."""

    served_name: ServedName
    """The version, or the base model."""
    file: Annotated[str, Field(max_length=1024)]
    """Below the results' uri: a line a row in the shape of OpenAI's Batch output, in the order of the rows."""
    failed: int
    """Rows that the engine would not answer; their lines say why."""
    first_error: LongText | None = None
    """What the engine said to the first of them."""
    version_uid: Annotated[str, Field(max_length=64)] | None = None
    """Of the ModelVersion; a base model has none."""
    prompt_tokens: int | None = None
    """Of what it was asked."""
    completion_tokens: int | None = None
    """Of its answers."""


class BatchResults(ApiModel):
    """Where the answers are."""

    uri: Annotated[str, Field(max_length=1024)]
    """`volume://<claim>/<path>`: a directory with requests.jsonl, results/, and manifest.json with their sha256."""
    rows: int
    """Rows that each model was asked."""
    failed: int
    """Rows that were not answered, of all models."""
    digest: Sha256
    """Over names and sha256 of the files of answers: the same answers, the same digest."""
    pairs: int | None = None
    """Pairs of answers that the ABTest of spec.abTest was given."""
    models: Annotated[tuple[ModelAnswers, ...], Field(max_length=MAX_MODELS)]
    """One each."""


class BatchTokens(ApiModel):
    """Of all answers of all models, as the engines counted them."""

    prompt: int
    """Of what was asked."""
    completion: int
    """Of the answers."""


class BatchCost(ApiModel):
    """Generated tokens x price of the engine that made them, of all models; without an amount there is a reason."""

    currency: Annotated[str, Field(max_length=16)] | None = None
    """Of the amount."""
    spent: Decimal | None = None
    """At its end, by the prices of then."""
    basis: LongText | None = None
    """What is multiplied by what."""
    unknown: LongText | None = None
    """Why there is no amount, and what makes it known."""


class BatchInferenceStatus(ApiModel):
    """What the operator knows."""

    observed_generation: int | None = None
    """The generation that this speaks of."""
    phase: BatchPhase | None = None
    """For printing; conditions are the API."""
    message: LongText | None = None
    """The fact behind the phase."""
    job_name: DnsSubdomain | None = None
    """The Kubernetes Job."""
    start_time: Timestamp | None = None
    """When the Job was made."""
    completion_time: Timestamp | None = None
    """When it had come to its end, well or badly."""
    progress: BatchProgress | None = None
    """How far it is."""
    directory: Annotated[str, Field(max_length=1024)] | None = None
    """`volume://<claim>/<path>`: what was asked and answered so far, also where the batch fails. It is deleted neither
    with the BatchInference nor with its Job: remove it from the volume when it is needed no more."""
    results: BatchResults | None = None
    """Where the answers are, once all are there."""
    tokens: BatchTokens | None = None
    """What it took."""
    cost: BatchCost | None = None
    """What that costs, once it has ended."""
    conditions: Conditions = ()
    """Succeeded, Ready; Suspended, Reconciling and Stalled only while true."""


class BatchInference(Resource):
    """A dataset run through one served version, or through two to compare them.

    What it has written stays on the volume when it fails or is deleted: see status.directory.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("size(self.metadata.name) <= 52", "metadata.name must have at most 52 characters"),
            ]
        }
    )

    spec: BatchInferenceSpec
    status: BatchInferenceStatus = BatchInferenceStatus()
