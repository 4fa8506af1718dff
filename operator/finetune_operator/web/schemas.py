"""Bodies of the ABTest interface. Names are those of the REST interface: `fine_tuned` is the candidate."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.resources.abtest import Arm
from finetune_operator.store.votes import Choice

Evaluator = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
        description="Who judges. By a Kubernetes token its user, and it may be left out; by others any name, always "
        "the same for the same person.",
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VoteWord(StrEnum):
    """A vote by side, or by arm for clients that know the sides."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    FINE_TUNED = "fine_tuned"
    BASE = "base"


class ComparisonRequest(_Body):
    """Ask for something to judge."""

    evaluator: Evaluator | None = None


class Answers(_Body):
    """Two answers without names."""

    a: str
    b: str


class BlindComparison(_Body):
    """What an evaluator sees."""

    comparison_id: str
    prompt: str
    answers: Answers


class VoteRequest(_Body):
    """One judgement."""

    comparison_id: Annotated[str, Field(min_length=1, max_length=36, pattern=r"^[-0-9a-f]+$")]
    evaluator: Evaluator | None = None
    vote: VoteWord


class Side(_Body):
    """Who was behind a side."""

    arm: Choice
    served_name: str


class Sides(_Body):
    """Both sides, revealed after the vote."""

    a: Side
    b: Side


class Tally(_Body):
    """Votes that count, a tie as half a win; `both_bad` are those ties that called both answers bad."""

    fine_tuned: int
    base: int
    tie: int
    both_bad: int
    win_rate: float | None

    @classmethod
    def of(cls, votes: VoteCounts) -> "Tally":
        return cls(**votes.model_dump(), win_rate=votes.win_rate)


class VoteResult(_Body):
    """What a vote said.

    `late` ones came after the verdict and don't count; nor does a second opinion, on two answers that another vote
    was on already: it tells how well people agree.
    """

    comparison_id: str
    vote: Choice
    late: bool
    second_opinion: bool
    sides: Sides
    tally: Tally


class RatedAnswers(_Body):
    """How clients rated the answers of one arm that they got from the gateway, from 1 to 5.

    Of `references` answers they told what they should have been; `mean_reference_score` is how near those came to it.
    """

    count: int
    mean_rating: float
    references: int
    mean_reference_score: float | None


class TestState(_Body):
    """An ABTest as the operator and the votes see it, and how it would be written as YAML."""

    __test__ = False

    id: str
    namespace: str
    name: str
    uid: str
    phase: str | None
    message: str | None
    baseline: str | None
    candidate: str
    verdict: str | None
    method: str
    p_value: str | None
    chi_squared_p_value: str | None
    candidate_score: str | None
    baseline_score: str | None
    leader: str | None
    votes_still_needed: int | None
    preference_lower: str | None
    preference_upper: str | None
    error_rates_p_value: str | None
    sample_ratio_p_value: str | None
    tally: Tally
    late_votes: int
    second_opinions: int
    comparisons: int
    feedback: dict[Arm, RatedAnswers]
    manifest: dict[str, JsonValue]


class VoterEntry(_Body):
    """One evaluator; `agreement` is how often the others said the same of the same prompts."""

    evaluator: str
    tally: Tally
    agreement: float | None


class VoterList(_Body):
    """Those with the most votes first, and what the operator says of the votes without the first one's."""

    evaluators: int
    agreement: float | None
    leader_without_heaviest: str | None
    p_value_without_heaviest: str | None
    voters: tuple[VoterEntry, ...]
    has_more: bool
    next: str | None
    """`after` of the next page."""


class WinRatePoint(_Body):
    """The votes as they were at some time."""

    time: datetime
    tally: Tally
    p_value: float


class WinRateSeries(_Body):
    """In the order of time."""

    points: tuple[WinRatePoint, ...]


class ComparisonEntry(_Body):
    """A comparison in a list; vote and sides only once there is a vote, so that the list can't tell a voter."""

    comparison_id: str
    namespace: str
    name: str
    evaluator: str
    prompt: str
    answers: Answers
    created_at: datetime
    vote: Choice | None
    late: bool | None
    second_opinion: bool | None
    sides: Sides | None


class ComparisonList(_Body):
    """The newest first."""

    comparisons: tuple[ComparisonEntry, ...]
    has_more: bool
    next: str | None
    """`after` of the next page."""
