"""All tables, as typed SQLAlchemy models. `migrations` is what creates them in a running system."""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

VOTES_THAT_COUNT = text("NOT late AND NOT second_opinion")
"""In these words a query finds the index that has nothing else; SQLite compares them."""
RowId = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC, also on SQLite, which forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(MappedAsDataclass, DeclarativeBase):
    """Base of all tables."""


class SchemaVersion(Base):
    """The migrations that have run."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    applied_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Rating(Base):
    """A person's judgement of one answer; the table may belong to another application."""

    __tablename__ = "ml_analysis_rating"
    __table_args__ = (Index("ml_analysis_rating_philosopher_domain", "philosopher", "domain"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    prompt: Mapped[str] = mapped_column(Text)
    response: Mapped[str] = mapped_column(Text)
    rating: Mapped[int] = mapped_column(Integer)
    is_gold_star: Mapped[bool] = mapped_column(Boolean)
    use_as_sample_response: Mapped[bool] = mapped_column(Boolean)
    philosopher: Mapped[str | None] = mapped_column(String(256))
    domain: Mapped[str | None] = mapped_column(String(256))
    task_type: Mapped[str | None] = mapped_column(String(256))
    confidence: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ProgressPoint(Base):
    """One measurement of a training or a batch inference; a restarted pod is a new attempt."""

    __tablename__ = "training_progress"
    __table_args__ = (Index("training_progress_job_time", "job_uid", "time"),)

    job_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    attempt: Mapped[str] = mapped_column(String(128), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    total_steps: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float] = mapped_column(Double)
    total_epochs: Mapped[float] = mapped_column(Double)
    loss: Mapped[float | None] = mapped_column(Double)
    best_loss: Mapped[float | None] = mapped_column(Double)
    learning_rate: Mapped[float | None] = mapped_column(Double)
    eta_seconds: Mapped[int | None] = mapped_column(BigInteger)
    eval_loss: Mapped[float | None] = mapped_column(Double)
    grad_norm: Mapped[float | None] = mapped_column(Double)
    tokens: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_second: Mapped[float | None] = mapped_column(Double)
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    checkpoint_step: Mapped[int | None] = mapped_column(BigInteger)
    checkpoint_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    failed_rows: Mapped[int | None] = mapped_column(BigInteger)
    time: Mapped[datetime] = mapped_column(UtcDateTime)


class TrainingLog(Base):
    """The last lines of a training's container, as it told them last."""

    __tablename__ = "training_logs"
    __table_args__ = (Index("training_logs_time", "time"),)

    job_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    container: Mapped[str] = mapped_column(String(63), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    text: Mapped[str] = mapped_column(Text)
    time: Mapped[datetime] = mapped_column(UtcDateTime)


class StoredAnswer(Base):
    """What one model answered to one of the first rows of a batch inference, or why it did not."""

    __tablename__ = "batch_answers"
    __table_args__ = (Index("batch_answers_time", "time"),)

    batch_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    served_name: Mapped[str] = mapped_column(String(128), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    custom_id: Mapped[str] = mapped_column(String(256))
    prompt: Mapped[str] = mapped_column(Text)
    answer: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    shortened: Mapped[bool] = mapped_column(Boolean)
    time: Mapped[datetime] = mapped_column(UtcDateTime)


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


class VersionUsage(Base):
    """What one gateway process has passed on to one version on one day (UTC); sums that only grow."""

    __tablename__ = "version_usage"

    version_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    reporter: Mapped[str] = mapped_column(String(64), primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    calls_with_tokens: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)


class SplitSubject(Base):
    """The arm that a subject's first sampled request of a test had, and the split by which it was chosen."""

    __tablename__ = "abtest_subjects"

    abtest_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject: Mapped[str] = mapped_column(String(16), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16))
    candidate_percent: Mapped[int] = mapped_column(Integer)


class Feedback(Base):
    """What a client said of the answer to its request; `rating_id` is its row for trainings, where it gave texts.

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


class Evaluation(Base):
    """One evaluation of one version, of its training (`Training`) or as it was served (`Served`).

    The id is the version's uid with `training`, or with what was asked for. An amount of money is in `currency`.
    """

    __tablename__ = "evaluations"
    __table_args__ = (Index("evaluations_version", "namespace", "model_version", "measured_at"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    source: Mapped[str] = mapped_column(String(16))
    namespace: Mapped[str] = mapped_column(String(63))
    model_version: Mapped[str] = mapped_column(String(253))
    model: Mapped[str] = mapped_column(String(63))
    base_model: Mapped[str] = mapped_column(String(128))
    adapter_digest: Mapped[str | None] = mapped_column(String(71))
    dataset_digest: Mapped[str | None] = mapped_column(String(71))
    examples: Mapped[int | None] = mapped_column(Integer)
    message: Mapped[str | None] = mapped_column(Text)
    currency: Mapped[str | None] = mapped_column(String(16))
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EvaluationValue(Base):
    """One quantity of an evaluation, side by side.

    Scores (0 to 1) have the name of their metric, such as `RougeL`, or `RougeL/coding` within a domain; besides there
    are evalLoss, meanLatencySeconds, p95LatencySeconds, meanSecondsToFirstToken, tokensPerSecond, costPerAnswer,
    costPerMillionTokens, memoryGigabytes, requestsPerSecondAtSaturation, tokensPerSecondAtSaturation and
    concurrencyAtSaturation. What was not measured has no row.
    """

    __tablename__ = "evaluation_values"

    evaluation_id: Mapped[str] = mapped_column(String(64), ForeignKey("evaluations.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    base: Mapped[float] = mapped_column(Double)
    fine_tuned: Mapped[float] = mapped_column(Double)


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


class MirroredResource(Base):
    """A custom resource as the API server last told it, for lists and for SQL clients; the cluster's is the truth.

    `created` is as the API server writes it, `attached` what a client of OpenAI's interface noted, as JSON. An amount
    is in millionths of `currency`: of a training what was spent, of a version the price of a million generated tokens.
    """

    __tablename__ = "resources"
    __table_args__ = (
        Index(
            "resources_newest",
            *("plural", "created", "namespace", "name", "model", "state", "philosopher", "domain", "job_uid"),
        ),
        Index("resources_uid", "uid"),
        Index("resources_engine", "engine"),
        Index("resources_model", "plural", "namespace", "model", "engine", "requested"),
        Index("resources_origin", "plural", "philosopher", "domain", "namespace", "uid"),
        Index("resources_training", "plural", "job_uid", "namespace"),
        Index("resources_state", "plural", "state", "created", "namespace", "name", "uid"),
        Index(
            "resources_sums",
            *("plural", "namespace", "currency", "state", "amount_micros", "is_unpriced", "is_over_budget", "win_rate"),
        ),
    )

    plural: Mapped[str] = mapped_column(String(32), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(253), primary_key=True)
    uid: Mapped[str] = mapped_column(String(64))
    resource_version: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[str] = mapped_column(String(32))
    model: Mapped[str | None] = mapped_column(String(253))
    state: Mapped[str | None] = mapped_column(String(32))
    philosopher: Mapped[str | None] = mapped_column(String(256))
    domain: Mapped[str | None] = mapped_column(String(256))
    job_uid: Mapped[str | None] = mapped_column(String(64))
    attached: Mapped[str | None] = mapped_column(Text)
    engine: Mapped[str | None] = mapped_column(String(253))
    requested: Mapped[str | None] = mapped_column(String(32))
    currency: Mapped[str | None] = mapped_column(String(16))
    amount_micros: Mapped[int | None] = mapped_column(BigInteger)
    is_unpriced: Mapped[bool] = mapped_column(Boolean, server_default=false())
    is_over_budget: Mapped[bool] = mapped_column(Boolean, server_default=false())
    win_rate: Mapped[float | None] = mapped_column(Double)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


class DeletedTraining(Base):
    """A FineTuneJob that is gone, as it was last known: a trigger keeps what is dropped from `resources`.

    Columns are as there; `is_back` says that the same one is there again, where it counts.
    """

    __tablename__ = "deleted_trainings"
    __table_args__ = (
        Index("deleted_trainings_sums", "is_back", "namespace", "currency", "amount_micros", "is_unpriced"),
        Index("deleted_trainings_newest", "deleted_at", "uid", "is_back", "namespace", "model"),
        Index("deleted_trainings_origin", "philosopher", "domain", "namespace", "uid"),
    )

    uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    resource_version: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[str] = mapped_column(String(32))
    model: Mapped[str | None] = mapped_column(String(253))
    state: Mapped[str | None] = mapped_column(String(32))
    philosopher: Mapped[str | None] = mapped_column(String(256))
    domain: Mapped[str | None] = mapped_column(String(256))
    currency: Mapped[str | None] = mapped_column(String(16))
    amount_micros: Mapped[int | None] = mapped_column(BigInteger)
    is_unpriced: Mapped[bool] = mapped_column(Boolean)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    is_back: Mapped[bool] = mapped_column(Boolean)


class Deployment(Base):
    """One change of what is active, as a ModelVersion's status told it; it outlives that and the version."""

    __tablename__ = "deployment_history"
    __table_args__ = (Index("deployment_history_model", "namespace", "model", "time"),)

    version_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    state: Mapped[str] = mapped_column(String(32), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(253))
    model_version: Mapped[str] = mapped_column(String(253))
    who: Mapped[str | None] = mapped_column(String(256))
    why: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(String(253))


class StoredApiKey(Base):
    """A key of the public interface, as whose ServiceAccount its holder acts; of the secret there is only a digest."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_account", "namespace", "service_account"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(128))
    namespace: Mapped[str] = mapped_column(String(63))
    service_account: Mapped[str] = mapped_column(String(253))
    created_by: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    revoked_by: Mapped[str | None] = mapped_column(Text, default=None)
