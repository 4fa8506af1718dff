"""Tables as typed SQLAlchemy models; `experiment_tables` has those of ABTests. `migrations` is what creates them in a
running system."""

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
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

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


class DeletedRow(Base):
    """A resource that is gone, as it was last known: a trigger keeps what is dropped from `resources`.

    Columns are as there; `is_back` says that the same one is there again, where it counts.
    """

    __abstract__ = True

    uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(253))
    resource_version: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str | None] = mapped_column(String(253))
    currency: Mapped[str | None] = mapped_column(String(16))
    amount_micros: Mapped[int | None] = mapped_column(BigInteger)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime)
    is_back: Mapped[bool] = mapped_column(Boolean)


class DeletedTraining(DeletedRow):
    """Of a FineTuneJob."""

    __tablename__ = "deleted_trainings"
    __table_args__ = (
        Index("deleted_trainings_sums", "is_back", "namespace", "currency", "amount_micros", "is_unpriced"),
        Index("deleted_trainings_newest", "deleted_at", "uid", "is_back", "namespace", "model"),
        Index("deleted_trainings_origin", "philosopher", "domain", "namespace", "uid"),
    )

    created: Mapped[str] = mapped_column(String(32))
    state: Mapped[str | None] = mapped_column(String(32))
    philosopher: Mapped[str | None] = mapped_column(String(256))
    domain: Mapped[str | None] = mapped_column(String(256))
    is_unpriced: Mapped[bool] = mapped_column(Boolean)


class DeletedVersion(DeletedRow):
    """Of a ModelVersion."""

    __tablename__ = "deleted_versions"
    __table_args__ = (Index("deleted_versions_newest", "deleted_at", "uid", "is_back", "namespace", "model"),)


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
