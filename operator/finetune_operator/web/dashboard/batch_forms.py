"""From the form of a batch run to the BatchInference that it stands for, and the ABTest that gets its answers. Pure."""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune_operator.resources.abtest import KIND as TEST_KIND
from finetune_operator.resources.batch_inference import KIND
from finetune_operator.resources.common import ShortText
from finetune_operator.web.abtest_requests import BASE, VersionName
from finetune_operator.web.creation import manifest, request_digest
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN
from finetune_operator.web.services import Object

Text = Annotated[str, Field(min_length=1, max_length=1024)]


class BatchForm(BaseModel):
    """What the form says; empty fields are absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")]
    name: Annotated[str, Field(max_length=52, pattern=f"^{NAME_PATTERN}$")]
    model_version: VersionName
    """A version that is served."""
    compare_with: VersionName | Literal["base", "nobody"] = "base"
    """Who gets the same rows."""
    source: Literal["ratings", "volume"] = "ratings"
    """Where the questions are."""
    domain: ShortText | None = None
    """Only this domain of the ratings."""
    ratings_claim: Annotated[str, Field(max_length=253, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Volume of an SQLite ratings database; empty for a database server."""
    path: Annotated[str, Field(max_length=1024, pattern=r"^volume://[^/]+/.+$")] | None = None
    """`volume://<claim>/<path>` of a file with one `{"prompt": "..."}` a line."""
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Ask only the first rows."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 256
    """Longest answer in tokens."""
    judged: bool = True
    """Whether people vote on the pairs of answers, blind."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.source == "volume" and self.path is None:
            raise ValueError("path: say where the file is, as volume://<claim>/<path>")
        if self.compare_with == self.model_version:
            raise ValueError("compare_with: choose another version than the one that is asked")
        family = self.model_version.rpartition("-v")[0]
        if self.is_judged and self.compare_with != BASE and self.compare_with.rpartition("-v")[0] != family:
            raise ValueError(f"compare_with: people can vote on two versions of {family} only; switch voting off")
        return self

    @property
    def is_judged(self) -> bool:
        """Votes need two answers to each question."""
        return self.judged and self.compare_with != "nobody"


class BatchObjects(NamedTuple):
    """What is made, in this order; without a vote there is no test."""

    test: Object | None
    batch: Object


def objects_of(form: BatchForm) -> BatchObjects:
    """Both carry the digest of the form, so that the same form makes them once."""
    digest = request_digest(form.model_dump(mode="json"))
    spec: Object = {"modelVersion": form.model_version}
    opponent = {"base": True} if form.compare_with == BASE else {"modelVersion": form.compare_with}
    if form.compare_with != "nobody":
        spec["compareWith"] = opponent
    spec |= {"dataset": _dataset(form), "limit": form.limit, "parameters": {"maxTokens": form.max_tokens}}
    test = None
    if form.is_judged:
        spec["abTest"] = {"name": form.name}
        test_spec: Object = {
            "model": form.model_version.rpartition("-v")[0],
            "baseline": opponent,
            "candidate": {"modelVersion": form.model_version},
            "onWin": "Notify",
        }
        test = manifest(TEST_KIND, form.namespace, form.name, test_spec, digest)
    return BatchObjects(test, manifest(KIND, form.namespace, form.name, spec, digest))


def _dataset(form: BatchForm) -> Object:
    if form.source == "volume":
        claim, _, path = (form.path or "").removeprefix("volume://").partition("/")
        return {"volume": {"claimName": claim, "path": path}}
    chosen = {"claimName": form.ratings_claim, "domain": form.domain}
    return {"ratings": {name: value for name, value in chosen.items() if value}}
