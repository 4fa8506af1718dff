"""From a request for a batch to its BatchInference, and to the ABTest that gets its answers. Pure."""

from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from finetune_operator.core.batch_texts import FORMATS, family_of_version, format_of
from finetune_operator.core.decimals import BoundedDecimal, decimal_text
from finetune_operator.resources.abtest import KIND as TEST_KIND
from finetune_operator.resources.batch_inference import KIND, MAX_ROWS, BatchFormat, BatchInferenceSpec, Parameters
from finetune_operator.resources.common import ShortText
from finetune_operator.resources.dataset import Ratings
from finetune_operator.web.abtest_requests import BASE, VersionName
from finetune_operator.web.creation import manifest
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN
from finetune_operator.web.job_requests import ApiVolumes, source_of

Object = dict[str, Any]
OWN_MEMBERS = frozenset({"namespace", "name", "spec"})
_PARAMETERS, _RATINGS = Parameters(), Ratings()
CONCURRENT_REQUESTS: int = BatchInferenceSpec.model_fields["max_concurrent_requests"].default

FormatName = Literal["prompts", "chatml", "alpaca", "openai", "rawjsonl", "instruction"]
# Where each flat name is in the spec.
PLACES: dict[str, tuple[str, ...]] = {
    "model_version": ("modelVersion",),
    "philosopher": ("dataset", "ratings", "philosopher"),
    "domain": ("dataset", "ratings", "domain"),
    "task_type": ("dataset", "ratings", "taskType"),
    "min_rating": ("dataset", "ratings", "minRating"),
    "gold_star_only": ("dataset", "ratings", "goldStarOnly"),
    "ratings_claim": ("dataset", "ratings", "claimName"),
    "limit": ("limit",),
    "max_tokens": ("parameters", "maxTokens"),
    "temperature": ("parameters", "temperature"),
    "top_p": ("parameters", "topP"),
    "seed": ("parameters", "seed"),
    "max_concurrent_requests": ("maxConcurrentRequests",),
}
RATINGS_MEMBERS = frozenset(name for name, place in PLACES.items() if place[:2] == ("dataset", "ratings"))


class BatchRequest(BaseModel):
    """Whom to ask what: flat members, or `spec` as a BatchInference has it, and never both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")] | None = None
    """Where; may be left out where the api serves one namespace."""
    name: Annotated[str, Field(max_length=52, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Of the BatchInference; one is made up where absent."""
    spec: dict[str, JsonValue] | None = None
    """A BatchInference's spec in place of all members below."""
    model_version: VersionName | None = None
    """Name of a version that is served, `<model>-v<N>`."""
    compare_with: VersionName | Literal["base"] | None = None
    """Who gets the same rows: another version that is served, or `base` for the version's base model."""
    dataset_path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """`volume://<claim>/<path>`, `s3://<bucket>/<key>`, `dataset_path` of an exported dataset, or
    `file-<digest>/data.jsonl` of an uploaded file; the prompts of ratings are asked where absent."""
    format: FormatName | None = None
    """Of the rows at `dataset_path`. Prompts have no answers; of the others, everything before the last answer is
    asked. Where absent, that of the exported dataset, else prompts."""
    philosopher: ShortText | None = None
    """Only judgements of this person."""
    domain: ShortText | None = None
    """Only this domain."""
    task_type: ShortText | None = None
    """Only this type of task."""
    min_rating: Annotated[int, Field(ge=1, le=5)] = _RATINGS.min_rating
    """Lowest rating that is taken."""
    gold_star_only: bool = _RATINGS.gold_star_only
    """Only rows with is_gold_star and use_as_sample_response."""
    ratings_claim: Annotated[str, Field(max_length=253, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Volume of an SQLite ratings database; absent for a database server."""
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = MAX_ROWS
    """Ask only the first rows, at most this many."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = _PARAMETERS.max_tokens
    """Longest answer in tokens."""
    temperature: Annotated[BoundedDecimal, Field(ge=0, le=2)] = Decimal(_PARAMETERS.temperature)
    """From 0, which takes the likeliest token, to 2."""
    top_p: Annotated[BoundedDecimal, Field(gt=0, le=1)] = Decimal(_PARAMETERS.top_p)
    """Share of probability that tokens are drawn from."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    """Of the random numbers."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=256)] = CONCURRENT_REQUESTS
    """Rows that are asked at once; the engine's other clients wait the longer for it."""
    vote: bool = False
    """Whether people vote on the pairs of answers, blind: an ABTest of the same name is made; it promotes nothing."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        flat = sorted(self.model_fields_set - OWN_MEMBERS)
        if self.spec is not None:
            if flat:
                raise ValueError(f"send either `spec` or flat members, not both: remove {', '.join(flat)}")
            return self
        if self.model_version is None:
            raise ValueError("model_version must be set, or `spec` as a BatchInference has it")
        if self.compare_with == self.model_version:
            raise ValueError("compare_with: choose another version than the one that is asked")
        filters = sorted(self.model_fields_set & RATINGS_MEMBERS)
        if self.dataset_path is not None and filters:
            raise ValueError(f"{', '.join(filters)} choose ratings, which dataset_path replaces: remove one of them")
        if self.dataset_path is None and self.format is not None:
            raise ValueError("format is of the rows at dataset_path: set that, too, or remove format")
        return self._votable()

    def _votable(self) -> Self:
        if not self.vote:
            return self
        if self.compare_with is None:
            raise ValueError("vote needs two answers to each row: set compare_with")
        if self.compare_with != BASE and family_of_version(self.compare_with) != self.family:
            raise ValueError(f"compare_with: people can vote on two versions of {self.family} only; switch voting off")
        return self

    @property
    def family(self) -> str:
        return family_of_version(self.model_version or "")


class BatchObjects(NamedTuple):
    """What is made, in this order; without a vote there is no test."""

    test: Object | None
    batch: Object


def batch_objects(
    request: BatchRequest, namespace: str, name: str, digest: str | None, volumes: ApiVolumes | None
) -> BatchObjects:
    """Both carry the digest, so that the same request makes them once. Raises `WrongRequest`."""
    if request.spec is not None:
        return BatchObjects(None, manifest(KIND, namespace, name, dict(request.spec), digest))
    spec: Object = {}
    for member, place in PLACES.items():
        value = getattr(request, member)
        if member in request.model_fields_set and value is not None:
            _put(spec, place, decimal_text(value) if isinstance(value, Decimal) else value)
    opponent = {"base": True} if request.compare_with == BASE else {"modelVersion": request.compare_with}
    if request.compare_with is not None:
        spec["compareWith"] = opponent
    if request.dataset_path is not None:
        spec["dataset"] = source_of(request.dataset_path, namespace, volumes) | _format(request)
    else:
        spec.setdefault("dataset", {}).setdefault("ratings", {})
    if not request.vote:
        return BatchObjects(None, manifest(KIND, namespace, name, spec, digest))
    spec["abTest"] = {"name": name}
    test = {
        "model": request.family,
        "baseline": opponent,
        "candidate": {"modelVersion": request.model_version},
        "onWin": "Notify",
    }
    made = manifest(TEST_KIND, namespace, name, test, digest)
    return BatchObjects(made, manifest(KIND, namespace, name, spec, digest))


def _format(request: BatchRequest) -> Object:
    """What is said, or follows from an exported dataset's id; nothing where that is the default, prompts."""
    chosen = FORMATS[request.format] if request.format else format_of(request.dataset_path or "")
    return {} if chosen is BatchFormat.PROMPTS else {"format": chosen.value}


def _put(spec: Object, place: tuple[str, ...], value: object) -> None:
    for part in place[:-1]:
        spec = spec.setdefault(part, {})
    spec[place[-1]] = value
