"""Samples of production traffic, votes and ratings, as the gateway, the api and the operator exchange them."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from finetune_operator.contract.base import Report

SAMPLES_MAX_PER_BATCH = 1000
PAIRS_MAX_PER_BATCH = 100
TOKENS_MAX = 2_147_483_647

Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]
Percent = Annotated[int, Field(ge=0, le=100)]


class Sample(Report):
    """One request that an arm of an ABTest answered, or failed to; `ab_test` is the ABTest's uid.

    `request_id` makes it count once however often it is sent. `status` is the HTTP status the client got. Tokens are
    those of the engine's `usage`, which a stream has only where its client asked for it. `subject` stands for who
    asked, in this test alone, and `candidate_percent` is the split by which the arm was chosen.
    """

    ab_test: Annotated[str, Field(min_length=1, max_length=64)]
    arm: Literal["baseline", "candidate"]
    served_name: Annotated[str, Field(min_length=1, max_length=128)]
    status: Annotated[int, Field(ge=100, le=599)]
    latency_ms: Annotated[int, Field(ge=0, le=2_147_483_647)]
    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    time: AwareDatetime
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    subject: Annotated[str, Field(min_length=1, max_length=16)] | None = None
    candidate_percent: Percent | None = None


class SampleBatch(Report):
    """Body of `SAMPLES_PATH`."""

    samples: Annotated[tuple[Sample, ...], Field(max_length=SAMPLES_MAX_PER_BATCH)]
    shadows: Annotated[tuple[Sample, ...], Field(max_length=SAMPLES_MAX_PER_BATCH)] = ()
    """Copies that the candidate answered for nobody: apart, so that an older api does not take them for requests."""


class VoteCounts(Report):
    """Blind votes that count; `fine_tuned` speaks of the candidate, `base` of the baseline.

    `both_bad` says how many of the ties called both answers bad.
    """

    fine_tuned: int = 0
    base: int = 0
    tie: int = 0
    both_bad: int = 0

    @property
    def total(self) -> int:
        return self.fine_tuned + self.base + self.tie

    @property
    def win_rate(self) -> float | None:
        """The candidate's share, a tie counting half; None before the first vote."""
        return (self.fine_tuned + self.tie / 2) / self.total if self.total else None

    def without(self, others: "VoteCounts") -> "VoteCounts":
        """What is left where these votes had not been cast."""
        return VoteCounts(**{name: max(0, count - getattr(others, name)) for name, count in self})


class VotersTally(Report):
    """Who cast the votes that count: how many people, and the votes of the one who cast the most.

    `agreement` is how often two people said the same of one prompt, each by the first vote on it; None where no two
    have judged the same.
    """

    evaluators: int = 0
    heaviest: VoteCounts = VoteCounts()
    agreement: float | None = None


class WinRatePoint(Report):
    """The votes as they were once `votes.total` of them had been cast, and when the last of these was."""

    time: AwareDatetime
    votes: VoteCounts


class ArmTally(Report):
    """What production traffic showed of one arm: `errors` of `samples` had a 5xx status, all else is of the others.

    The means of tokens are of the `samples_with_tokens` answers that told them. Standard errors are by subject, since
    answers of one are alike. Copies of the baseline's requests are counted apart, as `shadow_...`. What feedback tells
    of the answers' accuracy is there for who asks for it.
    """

    samples: int = 0
    errors: int = 0
    mean_latency_ms: int | None = None
    latency_subjects: int = 0
    standard_error_latency_ms: float | None = None
    samples_with_tokens: int = 0
    mean_prompt_tokens: float | None = None
    mean_completion_tokens: float | None = None
    token_subjects: int = 0
    standard_error_completion_tokens: float | None = None
    shadow_samples: int = 0
    shadow_errors: int = 0
    shadow_mean_latency_ms: int | None = None
    accuracy_subjects: int = 0
    mean_accuracy: float | None = None
    deviation_accuracy: float | None = None


class ArmTallies(Report):
    """Both arms."""

    baseline: ArmTally = ArmTally()
    candidate: ArmTally = ArmTally()


class SplitTally(Report):
    """Subjects by the arm that got their first sampled request, while the split was `candidate_percent`."""

    candidate_percent: Percent
    baseline: int = 0
    candidate: int = 0


class AbTestTally(Report):
    """Answer of `TALLY_PATH`; `win_rates` are a few points, the last of them of all votes."""

    votes: VoteCounts = VoteCounts()
    voters: VotersTally = VotersTally()
    win_rates: tuple[WinRatePoint, ...] = ()
    arms: ArmTallies = ArmTallies()
    splits: tuple[SplitTally, ...] = ()


class RatingTally(Report):
    """Answer of `VERSION_RATINGS_PATH`: how many of a version's answers were given how many stars."""

    answers: dict[int, int] = {}


class AnswerPair(Report):
    """What both arms of an ABTest answered to one prompt; the same id again is no news."""

    id: Annotated[str, Field(min_length=1, max_length=36)]
    prompt: str
    baseline_answer: str
    candidate_answer: str


class AnswerPairs(Report):
    """Body of a PUT to `PAIRS_PATH`: what people are to vote on, beside the ABTest's own prompts.

    With `keep_max` those are left out that would make more pairs of the ABTest than this.
    """

    baseline_served_name: Annotated[str, Field(min_length=1, max_length=128)]
    candidate_served_name: Annotated[str, Field(min_length=1, max_length=128)]
    pairs: Annotated[tuple[AnswerPair, ...], Field(max_length=PAIRS_MAX_PER_BATCH)]
    keep_max: Annotated[int, Field(ge=0)] | None = None
