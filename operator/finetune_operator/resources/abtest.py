"""ABTest: a candidate against a baseline, decided by blind votes and an always-valid test."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_operator.resources.common import (
    ApiModel,
    Conditions,
    Decimal,
    DnsLabel,
    LongText,
    ModelName,
    Resource,
    ServedName,
    ShortText,
    Timestamp,
    exactly_one,
    immutable,
    rule,
    rules,
)

KIND = "ABTest"


class Arm(StrEnum):
    """The two sides of a test."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Verdict(StrEnum):
    """How a test ended; Won and Lost speak of the candidate."""

    WON = "Won"
    LOST = "Lost"
    INCONCLUSIVE = "Inconclusive"
    ABORTED = "Aborted"


class OnWin(StrEnum):
    """What follows a win."""

    PROMOTE = "Promote"
    NOTIFY = "Notify"


class Baseline(ApiModel):
    """What the candidate is measured against."""

    model_config = rules(
        exactly_one("base", "modelVersion"),
        rule("!has(self.base) || self.base", "base can only be true; otherwise name a modelVersion"),
    )

    base: bool | None = None
    """The base model itself."""
    model_version: DnsLabel | None = None
    """A ModelVersion of the same model."""


class Candidate(ApiModel):
    """The version under test."""

    model_version: DnsLabel
    """A ModelVersion of the same model."""


class Traffic(ApiModel):
    """How the alias's requests are split while the test runs."""

    candidate_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of subjects that the candidate answers; 0 leaves the traffic alone, for votes only."""


class Decision(ApiModel):
    """When the test ends. Looking at it does not change its error rate."""

    model_config = rules(
        rule(
            "self.minVotes <= self.maxVotes",
            "minVotes must not be larger than maxVotes",
            field_path=".minVotes",
        )
    )

    alpha: Annotated[str, Field(max_length=12, pattern=r"^0\.[0-9]*[1-9][0-9]*$")] = "0.05"
    """Largest acceptable probability of a false verdict."""
    min_votes: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """No verdict before this many votes."""
    max_votes: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Inconclusive after this many votes."""
    max_duration_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 604_800
    """Inconclusive after this time."""


class ABTestSpec(ApiModel):
    """Who is compared with whom, on what, and what follows."""

    model_config = rules(
        *(immutable(name) for name in ("model", "baseline", "candidate", "decision")),
        rule(
            "!has(self.baseline.modelVersion) || self.baseline.modelVersion != self.candidate.modelVersion",
            "baseline and candidate must be different versions",
            field_path=".candidate",
        ),
        rule(
            "self.candidate.modelVersion.startsWith(self.model + '-v')",
            "candidate must be a version of spec.model",
            field_path=".candidate",
        ),
        rule(
            "!has(self.baseline.modelVersion) || self.baseline.modelVersion.startsWith(self.model + '-v')",
            "baseline must be a version of spec.model",
            field_path=".baseline",
        ),
    )

    model: ModelName
    """Alias whose traffic is split."""
    baseline: Baseline
    """What the candidate is measured against."""
    candidate: Candidate
    """The version under test."""
    traffic: Traffic = Traffic()
    """How requests are split."""
    prompts: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(max_length=200)] = ()
    """Both arms answer these; people vote without knowing which is which."""
    decision: Decision = Decision()
    """When the test ends."""
    on_win: OnWin = OnWin.PROMOTE
    """Promote makes a winning candidate the active version."""


class TestPhase(StrEnum):
    """For printing; conditions are the API."""

    __test__ = False

    PENDING = "Pending"
    RUNNING = "Running"
    CONCLUDED = "Concluded"


class Votes(ApiModel):
    """Tally of the blind votes, named as the REST interface names them."""

    fine_tuned: int = 0
    """Votes for the candidate."""
    base: int = 0
    """Votes for the baseline."""
    tie: int = 0
    """Votes for neither."""
    total: int = 0
    """All votes."""
    win_rate: Decimal | None = None
    """(candidate + half of the ties) / all."""
    win_rate_percent: ShortText | None = None
    """The same, for printing."""


class ArmStatus(ApiModel):
    """What production traffic showed of one arm."""

    served_name: ServedName
    """The version or base model that answers for this arm."""
    samples: int = 0
    """Requests answered."""
    errors: int = 0
    """Requests that failed."""
    mean_latency_ms: int | None = None
    """Mean time to the last byte."""


class Arms(ApiModel):
    """Both arms."""

    baseline: ArmStatus
    candidate: ArmStatus
    last_update_time: Timestamp | None = None
    """When this was written."""


class ABTestStatus(ApiModel):
    """What the operator knows."""

    observed_generation: int | None = None
    """The generation that this speaks of."""
    phase: TestPhase | None = None
    """For printing; conditions are the API."""
    message: LongText | None = None
    """The fact behind the phase."""
    split: ShortText | None = None
    """Baseline and candidate percent of the traffic."""
    votes: Votes | None = None
    """Tally of the blind votes."""
    arms: Arms | None = None
    """What production traffic showed."""
    p_value: Decimal | None = None
    """Always-valid p-value: may be looked at after each vote."""
    leader: ServedName | None = None
    """The arm with more votes."""
    votes_still_needed: int | None = None
    """Estimate of further votes until a verdict at the present win rate."""
    verdict: Verdict | None = None
    """Written once, never changed by late votes."""
    start_time: Timestamp | None = None
    """When both arms were first ready."""
    concluded_at: Timestamp | None = None
    """When the verdict fell."""
    conditions: Conditions = ()
    """TrafficConfigured, Concluded, Ready; Reconciling and Stalled only while true."""


class ABTest(Resource):
    """Two arms, a traffic split and blind votes until an honest statistic decides."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("size(self.metadata.name) <= 52", "metadata.name must have at most 52 characters")
            ]
        }
    )

    spec: ABTestSpec
    status: ABTestStatus = ABTestStatus()
