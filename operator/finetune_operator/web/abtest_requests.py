"""From a request for a comparison to the ABTest that it stands for, and what REST says of one. Pure."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from finetune_operator.core.decimals import BoundedDecimal, decimal_text
from finetune_operator.resources.abtest import KIND, ABTest, OnLoss, OnWin, TestPhase, Verdict
from finetune_operator.resources.abtest_decision import AccuracyFrom, Decision, Weights
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN, ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]
BASE = "base"
OWN_MEMBERS = frozenset({"namespace", "name", "spec"})
_DECISION, _WEIGHTS = Decision(), Weights()
WHOLE_PERCENT = 100
ACCURACY_FROM = {word.lower(): word for word in AccuracyFrom}
ON_WIN: dict[str, OnWin] = {word.lower(): word for word in OnWin}
ON_LOSS: dict[str, OnLoss] = {word.lower(): word for word in OnLoss}

VersionName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?-v[1-9][0-9]{0,5}$")]
Prompt = Annotated[str, Field(min_length=1, max_length=4096)]
Percent = Annotated[int, Field(ge=0, le=100)]
Votes = Annotated[int, Field(ge=1, le=1_000_000)]


class AskedWeights(BaseModel):
    """What an arm's score consists of, in percent; they sum to 100."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    accuracy: Percent = _WEIGHTS.accuracy
    """Weight of how good the answers are."""
    accuracy_from: Literal["votes", "references", "ratings"] = "votes"
    """What tells it: blind votes, or users' feedback, which then decides without any votes."""
    latency: Percent = _WEIGHTS.latency
    """Weight of the mean latency."""
    cost: Percent = _WEIGHTS.cost
    """Weight of the mean completion tokens."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (total := self.accuracy + self.latency + self.cost) != WHOLE_PERCENT:
            raise ValueError(f"weights must sum to {WHOLE_PERCENT}, not {total}: change accuracy, latency or cost")
        return self


class AbTestRequest(BaseModel):
    """What to compare: flat members, or `spec` as an ABTest has it, and never both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    namespace: Annotated[str, Field(pattern=f"^{NAMESPACE_PATTERN}$")] | None = None
    """Where; may be left out where the api serves one namespace."""
    name: Annotated[str, Field(max_length=52, pattern=f"^{NAME_PATTERN}$")] | None = None
    """Of the ABTest; one is made up where absent."""
    spec: dict[str, JsonValue] | None = None
    """An ABTest's spec in place of all members below."""
    candidate: VersionName | None = None
    """Name of the version under test, `<model>-v<N>`."""
    baseline: VersionName | Literal["base"] = "base"
    """Name of a version of the same model, or `base` for the base model itself."""
    test_prompts: Annotated[tuple[Prompt, ...], Field(max_length=200, strict=False)] = ()
    """Both answer these; people vote without knowing which is which."""
    candidate_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the model's users that the candidate answers; 0 leaves the traffic alone, for votes only."""
    alpha: Annotated[BoundedDecimal, Field(gt=0, lt=1)] = Decimal(_DECISION.alpha)
    """Largest acceptable probability of a false verdict."""
    min_votes: Votes = _DECISION.min_votes
    """No verdict before this many votes."""
    max_votes: Votes | None = None
    """The test ends at this many votes; absent, at what `min_effect` takes, else at 2000."""
    min_effect: Annotated[BoundedDecimal, Field(ge=Decimal("0.01"), lt=Decimal("0.5"))] | None = None
    """Least difference of the win rate from one half that matters: with it fewer votes are needed."""
    weights: AskedWeights | None = None
    """Score that must agree with the votes, in percent; `{}` is accuracy 60, latency 20, cost 20."""
    on_win: Literal["promote", "notify"] = "promote"
    """`promote` makes a winning candidate the active version."""
    on_loss: Literal["keep", "rollback"] = "keep"
    """`rollback` makes the baseline the active version if a candidate loses that is active."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        flat = sorted(self.model_fields_set - OWN_MEMBERS)
        if self.spec is not None and flat:
            raise ValueError(f"send either `spec` or flat members, not both: remove {', '.join(flat)}")
        if self.spec is None and self.candidate is None:
            raise ValueError("candidate must be set, or `spec` as an ABTest has it")
        return self


class AbTestEntry(BaseModel):
    """An ABTest in a list."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    """`<namespace>.<name>`."""
    uid: str
    namespace: str
    name: str
    model: str
    phase: TestPhase | None
    message: str | None
    baseline: str
    """A version's name, or `base`."""
    candidate: str
    candidate_percent: int
    prompts: int
    """How many there are."""
    votes: int
    verdict: Verdict | None
    created_at: datetime | None


class AbTestDetail(AbTestEntry):
    """An ABTest, and how it would be written as YAML."""

    manifest: dict[str, JsonValue]


class AbTestList(BaseModel):
    """The newest first."""

    model_config = ConfigDict(frozen=True)

    tests: tuple[AbTestEntry, ...]
    total: int
    has_more: bool
    next: str | None
    """`after` of the next page."""


def abtest_spec(request: AbTestRequest) -> Object:
    """The ABTest's spec with what was asked for, and nothing that has a default."""
    if request.spec is not None:
        return dict(request.spec)
    candidate = request.candidate or ""
    spec: Object = {
        "model": candidate.rpartition("-v")[0],
        "baseline": {"base": True} if request.baseline == BASE else {"modelVersion": request.baseline},
        "candidate": {"modelVersion": candidate},
    }
    said = request.model_fields_set
    if request.test_prompts:
        spec["prompts"] = list(request.test_prompts)
    if request.candidate_percent:
        spec["traffic"] = {"candidatePercent": request.candidate_percent}
    decision: Object = {}
    if "alpha" in said:
        decision["alpha"] = decimal_text(request.alpha)
    if "min_votes" in said:
        decision["minVotes"] = request.min_votes
    if request.max_votes is not None:
        decision["maxVotes"] = request.max_votes
    if request.min_effect is not None:
        decision["minEffect"] = decimal_text(request.min_effect)
    if request.weights is not None:
        decision["weights"] = _weights(request.weights)
    if decision:
        spec["decision"] = decision
    if "on_win" in said:
        spec["onWin"] = ON_WIN[request.on_win].value
    if "on_loss" in said:
        spec["onLoss"] = ON_LOSS[request.on_loss].value
    return spec


def _weights(asked: AskedWeights) -> Object:
    source = ACCURACY_FROM[asked.accuracy_from]
    of_feedback = {} if source is AccuracyFrom.VOTES else {"accuracyFrom": source.value}
    return asked.model_dump(exclude={"accuracy_from"}) | of_feedback


def abtest_entry(body: Object) -> AbTestEntry:
    return AbTestEntry(**_members(body))


def abtest_detail(body: Object) -> AbTestDetail:
    return AbTestDetail(**_members(body), manifest=shown_manifest(KIND, body))


def _members(body: Object) -> dict[str, Any]:
    test = parsed(ABTest, body)
    metadata, spec, status = test.metadata, test.spec, test.status
    return {
        "id": str(ObjectId(metadata.namespace, metadata.name)),
        "uid": metadata.uid,
        "namespace": metadata.namespace,
        "name": metadata.name,
        "model": spec.model,
        "phase": status.phase,
        "message": status.message,
        "baseline": spec.baseline.model_version or BASE,
        "candidate": spec.candidate.model_version,
        "candidate_percent": spec.traffic.candidate_percent,
        "prompts": len(spec.prompts),
        "votes": status.votes.total if status.votes else 0,
        "verdict": status.verdict,
        "created_at": metadata.creation_timestamp,
    }
