"""ABTest: a candidate against a baseline, decided by blind votes, weights and guardrails."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_operator.resources.abtest_decision import VOTE_LOOKS, Decision, Guardrails
from finetune_operator.resources.common import (
    ApiModel,
    Conditions,
    Decimal,
    DnsLabel,
    LongText,
    ModelName,
    PreciseTimestamp,
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
WIN_RATES_MAX_POINTS = 50
ERROR_EFFECTS = 14


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


class OnLoss(StrEnum):
    """What follows a loss."""

    KEEP = "Keep"
    ROLLBACK = "Rollback"


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

    model_config = rules(
        rule(
            "self.pairPercent == 0 || self.shadowPercent > 0",
            "pairPercent is of the copied requests: raise shadowPercent, too",
            field_path=".pairPercent",
        ),
    )

    candidate_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of subjects that the candidate answers; 0 leaves the traffic alone, for votes only."""
    shadow_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the baseline's subjects whose requests are also sent to the candidate, after their own answers.

    No user sees its answers; guardrails judge them. At candidatePercent 0 only while the baseline is active anyway."""
    pair_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of the copied chats that people judge blind, before the prompts; decision.maxVotes of them at most.

    What users wrote and both answers are kept in the database (tables `abtest_pairs` and `abtest_comparisons`, from
    which nothing deletes them) and shown to evaluators; an api without a token refuses them. 0 keeps no text."""

    @property
    def any(self) -> bool:
        """Whether requests to the alias concern the test at all."""
        return self.candidate_percent > 0 or self.shadow_percent > 0


class ABTestSpec(ApiModel):
    """Who is compared with whom, on what, and what follows."""

    model_config = rules(
        *(immutable(name) for name in ("model", "baseline", "candidate", "decision", "guardrails")),
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
        rule(
            "self.onLoss != 'Rollback' || has(self.baseline.modelVersion)",
            "onLoss Rollback needs baseline.modelVersion: name a version to go back to, or set onLoss to Keep",
            field_path=".onLoss",
        ),
        rule(
            "self.traffic.shadowPercent == 0 || self.traffic.candidatePercent > 0 || has(self.baseline.modelVersion)",
            "shadowPercent alone copies what the active version answers: name it in baseline.modelVersion, "
            "or raise candidatePercent",
            field_path=".traffic.shadowPercent",
        ),
        rule(
            "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
            "a cancelled test can't be taken up again: create a new one",
            field_path=".cancel",
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
    guardrails: Guardrails | None = None
    """What the candidate must not exceed, in users' requests and in shadow copies of them, as spec.traffic has them."""
    on_win: OnWin = OnWin.PROMOTE
    """Promote makes a winning candidate the active version, unless it misses what its spec.evaluation requires."""
    on_loss: OnLoss = OnLoss.KEEP
    """Rollback makes the baseline the active version if a candidate loses that is active."""
    cancel: bool = False
    """End the test for good before its verdict, which is Aborted then: nothing is promoted and no traffic is split any
    more. The votes are kept; it can't be set back."""


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
    both_bad: int | None = None
    """Those among the ties that called both answers bad."""
    total: int = 0
    """All votes."""
    win_rate: Decimal | None = None
    """(candidate + half of the ties) / all."""
    win_rate_percent: ShortText | None = None
    """The same, for printing."""
    preference_lower: Decimal | None = None
    """Least share, of the votes that prefer one of the two, that may truly be the candidate's."""
    preference_upper: Decimal | None = None
    """Largest such share; at all looks together both are right with probability 1 - decision.alpha."""


class Voters(ApiModel):
    """Who cast the votes, and what the votes say without the one who cast the most."""

    evaluators: int = 0
    """People who have voted."""
    heaviest_votes: int = 0
    """Votes of the one who cast the most."""
    leader_without_heaviest: ServedName | None = None
    """The arm with more votes but for these."""
    p_value_without_heaviest: Decimal | None = None
    """The p-value of decision.method but for these votes; with decision.minEffect that of a test of fixed size."""
    agreement: Decimal | None = None
    """How often two people said the same of one prompt, between 0 and 1, each by the first vote on it."""


class WinRatePoint(ApiModel):
    """What had been voted at some time."""

    time: Timestamp
    """When the last of these votes was cast."""
    votes: int
    """All votes until then."""
    win_rate: Decimal
    """(candidate + half of the ties) / all."""


class ArmStatus(ApiModel):
    """What production traffic showed of one arm."""

    served_name: ServedName
    """The version or base model that answers for this arm."""
    samples: int = 0
    """Requests answered."""
    errors: int = 0
    """Requests that failed."""
    subjects: int | None = None
    """Subjects whose first request this arm got."""
    mean_latency_ms: int | None = None
    """Mean time to the last byte of those that did not fail."""
    latency_subjects: int | None = None
    """Subjects who got these."""
    standard_error_latency_ms: Decimal | None = None
    """How far the mean may be off, by subject, since the answers of one are alike."""
    samples_with_tokens: int | None = None
    """Answers whose engine told how many tokens they have."""
    mean_prompt_tokens: Decimal | None = None
    """Mean length of those answers' prompts; the split is fair where both arms have about the same."""
    mean_completion_tokens: Decimal | None = None
    """Mean length of those answers: what an answer costs, since both arms have one price per token."""
    token_subjects: int | None = None
    """Subjects who got these."""
    standard_error_completion_tokens: Decimal | None = None
    """How far that mean may be off, by subject."""
    shadow_samples: int | None = None
    """Copies of the baseline's requests that it answered for nobody, beside `samples`."""
    shadow_errors: int | None = None
    """Copies that failed."""
    shadow_mean_latency_ms: int | None = None
    """Mean time to the last byte of the copies that did not fail."""
    accuracy_subjects: int | None = None
    """Subjects whose feedback tells the accuracy of their answers, by decision.weights.accuracyFrom."""
    mean_accuracy: Decimal | None = None
    """Mean over these, each by the mean of its answers: of references their score, of ratings 0 (1 star) to 1 (5)."""
    deviation_accuracy: Decimal | None = None
    """Standard deviation of these."""
    score: Decimal | None = None
    """Weighted composite by decision.weights, between 0 and 1; both arms' scores sum to 1."""
    score_lower: Decimal | None = None
    """Least score that the arm may truly have."""
    score_upper: Decimal | None = None
    """Largest such score; at all looks together both are right with probability about 1 - decision.alpha."""

    @property
    def answers(self) -> int:
        """Those requests that did not fail."""
        return self.samples - self.errors


class Look(ApiModel):
    """What one look of a test with decision.minEffect found."""

    votes: int
    """All votes then."""
    fine_tuned: int
    """Those for the candidate."""
    base: int
    """Those for the baseline."""
    lead_needed: int
    """Votes by which one of the two had to lead for a verdict, worked out from this look and those before."""

    @property
    def is_significant(self) -> bool:
        return abs(self.fine_tuned - self.base) >= self.lead_needed


class ErrorCounts(ApiModel):
    """Requests that both arms' error rates have been compared by."""

    candidate_errors: int = 0
    """Those of the candidate that failed."""
    candidate_samples: int = 0
    """All of the candidate."""
    baseline_errors: int = 0
    """Those of the baseline that failed."""
    baseline_samples: int = 0
    """All of the baseline."""


class Arms(ApiModel):
    """Both arms."""

    baseline: ArmStatus
    candidate: ArmStatus
    error_rates_p_value: Decimal | None = None
    """Always-valid p-value of both arms' requests failing equally often."""
    error_evidence: Annotated[tuple[ShortText, ...], Field(max_length=ERROR_EFFECTS)] | None = None
    """What that is worked out from: logarithms of e-values, one for each size of a difference."""
    error_counts: ErrorCounts | None = None
    """The requests in that; those since then wait until each arm has had one."""
    sample_ratio_p_value: Decimal | None = None
    """Always-valid p-value of the subjects being split as traffic.candidatePercent says."""
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
    voters: Voters | None = None
    """Whose votes they are."""
    win_rates: Annotated[tuple[WinRatePoint, ...], Field(max_length=WIN_RATES_MAX_POINTS)] | None = None
    """The win rate over time, evenly thinned; the database has it after each vote."""
    arms: Arms | None = None
    """What production traffic showed."""
    p_value: Decimal | None = None
    """Always-valid p-value: may be looked at after each vote. Of votes, hence none where feedback decides."""
    chi_squared_p_value: Decimal | None = None
    """Of a test of fixed size: not to be peeked at, since it holds only once, at decision.maxVotes votes."""
    looks: Annotated[tuple[Look, ...], Field(max_length=VOTE_LOOKS)] | None = None
    """With decision.minEffect: the looks that may decide. Each happens once, at the first count that is due."""
    leader: ServedName | None = None
    """The arm with more votes, or with the higher score where feedback decides (decision.weights.accuracyFrom)."""
    votes_still_needed: int | None = None
    """Votes until a verdict: an estimate at the present win rate, or exact where ChiSquared decides; with
    decision.minEffect the most there may be."""
    verdict: Verdict | None = None
    """Written once, never changed by late votes."""
    start_time: Timestamp | None = None
    """When both arms were first ready."""
    concluded_at: PreciseTimestamp | None = None
    """When the verdict fell."""
    conditions: Conditions = ()
    """TrafficConfigured, SampleRatioMatches, Concluded, Ready; Reconciling and Stalled only while true."""


class ABTest(Resource):
    """Two arms, a traffic split and blind votes until an honest statistic decides."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("size(self.metadata.name) <= 52", "metadata.name must have at most 52 characters"),
                rule(
                    "!has(oldSelf.status) || !has(oldSelf.status.verdict) || "
                    "(self.spec.onWin == oldSelf.spec.onWin && self.spec.onLoss == oldSelf.spec.onLoss)",
                    "onWin and onLoss are immutable once the test has its verdict: "
                    "set the spec.state of a ModelVersion instead",
                ),
            ]
        }
    )

    spec: ABTestSpec
    status: ABTestStatus = ABTestStatus()
