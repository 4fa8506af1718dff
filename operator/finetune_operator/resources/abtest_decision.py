"""When an ABTest ends, and what counts: by votes, by weighted scores, and by what the candidate must not exceed."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, rule, rules

BETWEEN_0_AND_1 = r"^0\.[0-9]*[1-9][0-9]*$"
MIN_EFFECT = r"^0\.(0[1-9]|[1-4])[0-9]*$"
ABOVE_0 = r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)$"
DEFAULT_MAX_VOTES = 2000
VOTE_LOOKS = 10
"""How often a test with a minimum effect looks at its votes."""


class Method(StrEnum):
    """Which statistic decides."""

    ALWAYS_VALID = "AlwaysValid"
    CHI_SQUARED = "ChiSquared"


class AccuracyFrom(StrEnum):
    """What tells which arm's answers are better."""

    VOTES = "Votes"
    REFERENCES = "References"
    RATINGS = "Ratings"


Percent = Annotated[int, Field(ge=0, le=100)]


class Weights(ApiModel):
    """What an arm's score consists of, in percent; each part is the arm's share between the two arms."""

    model_config = rules(
        rule(
            "self.accuracy + self.latency + self.cost == 100",
            "weights must sum to 100 (those left out are accuracy 60, latency 20, cost 20): change them",
        )
    )

    accuracy: Percent = 60
    """Weight of how good the answers are, by accuracyFrom."""
    accuracy_from: AccuracyFrom = AccuracyFrom.VOTES
    """Votes: the win rate, and a verdict also needs the votes to be significant. The others are of feedback on
    answers to users, so that the score alone decides: References takes how near answers came to what feedback says
    they should have been (TokenF1), Ratings how users rated them."""
    latency: Percent = 20
    """Weight of the mean latency of production traffic; the quicker arm has the larger share."""
    cost: Percent = 20
    """Weight of the mean completion tokens of an answer; the terser arm has the larger share."""


class Decision(ApiModel):
    """When the test ends. Looking at it does not change its error rate."""

    model_config = rules(
        rule(
            "!has(self.maxVotes) || self.minVotes <= self.maxVotes",
            "minVotes must not be larger than maxVotes",
            field_path=".minVotes",
        ),
        rule(
            f"has(self.maxVotes) || has(self.minEffect) || self.minVotes <= {DEFAULT_MAX_VOTES}",
            f"without maxVotes the test ends at {DEFAULT_MAX_VOTES} votes: set maxVotes, or lower minVotes",
            field_path=".minVotes",
        ),
        rule(
            "!has(self.minEffect) || self.method == 'AlwaysValid'",
            "minEffect needs method AlwaysValid: ChiSquared looks once, at maxVotes",
            field_path=".minEffect",
        ),
        rule(
            "!has(self.minEffect) || double(self.alpha) >= 0.001",
            "minEffect needs an alpha of at least 0.001: raise alpha, or leave minEffect out",
            field_path=".alpha",
        ),
        rule(
            "!has(self.maxSamplesPerArm) || self.minSamplesPerArm <= self.maxSamplesPerArm",
            "minSamplesPerArm must not be larger than maxSamplesPerArm",
            field_path=".minSamplesPerArm",
        ),
        rule(
            "!has(self.weights) || self.weights.accuracyFrom == 'Votes' || self.weights.accuracy > 0",
            "without accuracy no feedback decides: raise weights.accuracy, or leave weights.accuracyFrom out",
            field_path=".weights",
        ),
        rule(
            "!has(self.weights) || self.weights.accuracyFrom == 'Votes' "
            "|| (self.method == 'AlwaysValid' && !has(self.minEffect))",
            "weights.accuracyFrom other than Votes lets feedback decide, not votes: leave method and minEffect out",
            field_path=".weights",
        ),
    )

    method: Method = Method.ALWAYS_VALID
    """AlwaysValid may decide after each vote; ChiSquared decides once, at maxVotes votes."""
    alpha: Annotated[str, Field(max_length=12, pattern=BETWEEN_0_AND_1)] = "0.05"
    """Largest acceptable probability of a false verdict by votes, and of a false alarm by each guardrail
    of errors."""
    min_votes: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """No verdict by votes before this many of them."""
    max_votes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The test ends at this many votes; later ones don't count. Absent: what minEffect takes, else 2000."""
    min_effect: Annotated[str, Field(max_length=12, pattern=MIN_EFFECT)] | None = None
    """Least difference of the win rate from one half that matters, from 0.01 to below 0.5. With it the test looks at
    the votes ten times on the way to maxVotes and needs fewer of them; one that large is found with probability 0.8.
    It needs an alpha of at least 0.001."""
    max_duration_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 604_800
    """Inconclusive after this time."""
    min_samples_per_arm: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """Latencies and costs of fewer answers are not compared, neither by weights, which ask for 30 of each arm in any
    case, nor by maxLatencyRatio; 100 are recommended, and a message says so until then."""
    max_samples_per_arm: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Inconclusive once each arm has had this many requests."""
    weights: Weights | None = None
    """With these, a verdict needs a weighted score whose bounds exclude a tie; absent, votes alone decide."""

    @property
    def by_feedback(self) -> AccuracyFrom | None:
        """What of feedback decides, where votes do not."""
        if self.weights is None or self.weights.accuracy_from is AccuracyFrom.VOTES or not self.weights.accuracy:
            return None
        return self.weights.accuracy_from


class Guardrails(ApiModel):
    """What the candidate must not exceed in production traffic; a breach loses the test at once."""

    no_more_errors: bool = False
    """The candidate's requests must not fail more often than the baseline's, by an always-valid test of the two at
    decision.alpha; copies don't count in it."""

    max_error_rate: Annotated[str, Field(max_length=12, pattern=BETWEEN_0_AND_1)] | None = None
    """Share of the candidate's requests that may fail, judged by an always-valid test at decision.alpha."""
    max_latency_ratio: Annotated[str, Field(max_length=12, pattern=ABOVE_0)] | None = None
    """Mean latency of the candidate over the baseline's, compared once both have decision.minSamplesPerArm answers."""
