"""Tables of ABTests, as typed SQLAlchemy models: comparisons, votes, samples, feedback, and the sums of them."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column

from finetune_operator.store.tables import Base, UtcDateTime

VOTES_THAT_COUNT = text("NOT late AND NOT second_opinion")
"""In these words a query finds the index that has nothing else; SQLite compares them."""


class ArmSample(Base):
    """One request of production traffic that an arm answered, or a copy of one that it answered for nobody."""

    __tablename__ = "abtest_samples"
    __table_args__ = (Index("abtest_samples_newest", "abtest_uid", "time", "request_id"),)

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16))
    served_name: Mapped[str] = mapped_column(String(128))
    status: Mapped[int] = mapped_column(Integer)
    latency_ms: Mapped[int] = mapped_column(Integer)
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    shadow: Mapped[bool] = mapped_column(Boolean, server_default=false())
    subject: Mapped[str | None] = mapped_column(String(64), default=None)


class SplitSubject(Base):
    """The arm that a subject's first sampled request of a test had, and the split by which it was chosen."""

    __tablename__ = "abtest_subjects"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject: Mapped[str] = mapped_column(String(16), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16))
    candidate_percent: Mapped[int] = mapped_column(Integer)


class Feedback(Base):
    """What a client said of the answer to its request; `rating_id` is its row for trainings, where it gave texts, and
    `reference_rating_id` that of what the answer should have been.

    `version_uid` is of the ModelVersion that was asked, as far as the request id tells it. `reference_score` is TokenF1
    of the answer by what the client says it should have been.
    """

    __tablename__ = "feedback"
    __table_args__ = (Index("feedback_version", "version_uid", "rating"),)

    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    rating: Mapped[int] = mapped_column(Integer)
    rating_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    version_uid: Mapped[str | None] = mapped_column(String(64))
    reference_score: Mapped[float | None] = mapped_column(Double)
    reference_rating_id: Mapped[int | None] = mapped_column(BigInteger)


class Comparison(Base):
    """Two answers to one prompt, shown to one evaluator without their names; `number` counts the evaluator's own.

    `pair_id` is the same wherever the same two answers are judged: of those that are stored, and of two that came out
    alike when the models were asked anew.
    """

    __tablename__ = "abtest_comparisons"
    __table_args__ = (
        UniqueConstraint("abtest_uid", "evaluator", "number", name="abtest_comparisons_once"),
        Index("abtest_comparisons_created", "created_at"),
        Index("abtest_comparisons_pair", "pair_id"),
        Index("abtest_comparisons_namespace", "namespace", "created_at"),
        Index("abtest_comparisons_test", "namespace", "name", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    abtest_uid: Mapped[str] = mapped_column(String(64))
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    evaluator: Mapped[str] = mapped_column(String(128))
    number: Mapped[int] = mapped_column(Integer)
    prompt: Mapped[str] = mapped_column(Text)
    baseline_served_name: Mapped[str] = mapped_column(String(128))
    candidate_served_name: Mapped[str] = mapped_column(String(128))
    baseline_answer: Mapped[str] = mapped_column(Text)
    candidate_answer: Mapped[str] = mapped_column(Text)
    candidate_side: Mapped[str] = mapped_column(String(1))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    pair_id: Mapped[str | None] = mapped_column(String(36), default=None)


class StoredPair(Base):
    """Two answers to one prompt, of a BatchInference or a user's request; each evaluator gets it in one comparison."""

    __tablename__ = "abtest_pairs"
    __table_args__ = (Index("abtest_pairs_abtest", "abtest_uid"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    abtest_uid: Mapped[str] = mapped_column(String(64))
    prompt: Mapped[str] = mapped_column(Text)
    baseline_served_name: Mapped[str] = mapped_column(String(128))
    candidate_served_name: Mapped[str] = mapped_column(String(128))
    baseline_answer: Mapped[str] = mapped_column(Text)
    candidate_answer: Mapped[str] = mapped_column(Text)


class Vote(Base):
    """One evaluator's judgement of one comparison.

    `late` ones came after the verdict and never count. Nor does a second opinion: people mostly agree on two answers,
    so that only the first vote on them is an observation of its own, which is what the statistics take votes for.
    """

    __tablename__ = "abtest_votes"
    __table_args__ = (
        Index(
            "abtest_votes_order",
            *("abtest_uid", "late", "second_opinion", "created_at", "comparison_id", "choice"),
        ),
        Index(
            "abtest_votes_one_of_a_pair",
            "pair_id",
            unique=True,
            sqlite_where=VOTES_THAT_COUNT,
            postgresql_where=VOTES_THAT_COUNT,
        ),
    )

    comparison_id: Mapped[str] = mapped_column(String(36), ForeignKey("abtest_comparisons.id"), primary_key=True)
    evaluator: Mapped[str] = mapped_column(String(128), primary_key=True)
    abtest_uid: Mapped[str] = mapped_column(String(64))
    choice: Mapped[str] = mapped_column(String(16))
    late: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    second_opinion: Mapped[bool] = mapped_column(Boolean, server_default=false())
    pair_id: Mapped[str | None] = mapped_column(String(36), default=None)


class ChoiceCounts(MappedAsDataclass):
    """How often each choice was made."""

    fine_tuned: Mapped[int] = mapped_column(BigInteger)
    base: Mapped[int] = mapped_column(BigInteger)
    tie: Mapped[int] = mapped_column(BigInteger)
    both_bad: Mapped[int] = mapped_column(BigInteger)


class TestCounts(ChoiceCounts, Base):
    """How many comparisons and votes an ABTest has; triggers of both tables keep it, in the same transaction.

    The choices are of the votes that count.
    """

    __test__ = False
    __tablename__ = "abtest_counts"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    late: Mapped[int] = mapped_column(BigInteger)
    second_opinions: Mapped[int] = mapped_column(BigInteger, server_default="0")


class VoteLog(ChoiceCounts, Base):
    """The counts of an ABTest after each vote that counts, in the order in which they were kept.

    Triggers write it, so that a curve of some points is some rows. A vote that is deleted takes all rows of its test
    with it: what is left then does not begin with the first vote.
    """

    __tablename__ = "abtest_vote_log"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VoterCounts(ChoiceCounts, Base):
    """How one evaluator voted in an ABTest, by the votes that count; triggers keep it."""

    __tablename__ = "abtest_voters"
    __table_args__ = (Index("abtest_voters_heaviest", "abtest_uid", "votes", "evaluator"),)

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    evaluator: Mapped[str] = mapped_column(String(128), primary_key=True)
    votes: Mapped[int] = mapped_column(BigInteger)


class ArmSums(Base):
    """What the samples of one arm sum up to; triggers keep it. Latencies are of requests that did not fail."""

    __tablename__ = "abtest_arm_sums"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16), primary_key=True)
    samples: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    latency_ms: Mapped[float] = mapped_column(Double)
    latency_ms_squared: Mapped[float] = mapped_column(Double)
    samples_with_tokens: Mapped[int] = mapped_column(BigInteger)
    prompted_samples: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[float] = mapped_column(Double)
    completion_tokens: Mapped[float] = mapped_column(Double)
    completion_tokens_squared: Mapped[float] = mapped_column(Double)
    shadow_samples: Mapped[int] = mapped_column(BigInteger)
    shadow_errors: Mapped[int] = mapped_column(BigInteger)
    shadow_latency_ms: Mapped[float] = mapped_column(Double)


class SubjectSums(Base):
    """What the answers of one subject sum up to, those that failed and copies aside; triggers keep it."""

    __tablename__ = "abtest_subject_sums"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(String(128), primary_key=True)
    answers: Mapped[int] = mapped_column(BigInteger)
    latency_ms: Mapped[float] = mapped_column(Double)
    answers_with_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[float] = mapped_column(Double)
