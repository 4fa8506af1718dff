"""The first eight steps of the schema's history, which `migrations` goes on with and applies. Frozen as all of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Migration(NamedTuple):
    """One step forward."""

    version: int
    statements: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """After these, by the name of the dialect."""
    before: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """As `own`, but before all others."""


EARLY_MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        (
            """
            CREATE TABLE IF NOT EXISTS ml_analysis_rating (
                id {row_id},
                prompt TEXT NOT NULL,
                response TEXT NOT NULL,
                rating INTEGER NOT NULL,
                is_gold_star BOOLEAN NOT NULL,
                use_as_sample_response BOOLEAN NOT NULL,
                philosopher VARCHAR(256),
                domain VARCHAR(256),
                task_type VARCHAR(256),
                confidence DOUBLE PRECISION,
                created_at {timestamp} NOT NULL
            )
            """,
            """
            CREATE INDEX IF NOT EXISTS ml_analysis_rating_philosopher_domain
            ON ml_analysis_rating (philosopher, domain)
            """,
            """
            CREATE TABLE training_progress (
                job_uid VARCHAR(64) NOT NULL,
                attempt VARCHAR(128) NOT NULL,
                step BIGINT NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                name VARCHAR(253) NOT NULL,
                total_steps BIGINT NOT NULL,
                epoch DOUBLE PRECISION NOT NULL,
                total_epochs DOUBLE PRECISION NOT NULL,
                loss DOUBLE PRECISION,
                best_loss DOUBLE PRECISION,
                learning_rate DOUBLE PRECISION,
                eta_seconds BIGINT,
                time {timestamp} NOT NULL,
                PRIMARY KEY (job_uid, attempt, step)
            )
            """,
            "CREATE INDEX training_progress_job_time ON training_progress (job_uid, time)",
            """
            CREATE TABLE abtest_samples (
                abtest_uid VARCHAR(64) NOT NULL,
                request_id VARCHAR(128) NOT NULL,
                arm VARCHAR(16) NOT NULL,
                served_name VARCHAR(128) NOT NULL,
                status INTEGER NOT NULL,
                latency_ms INTEGER NOT NULL,
                time {timestamp} NOT NULL,
                PRIMARY KEY (abtest_uid, request_id)
            )
            """,
            """
            CREATE TABLE abtest_comparisons (
                id VARCHAR(36) PRIMARY KEY NOT NULL,
                abtest_uid VARCHAR(64) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                name VARCHAR(253) NOT NULL,
                evaluator VARCHAR(128) NOT NULL,
                number INTEGER NOT NULL,
                prompt TEXT NOT NULL,
                baseline_served_name VARCHAR(128) NOT NULL,
                candidate_served_name VARCHAR(128) NOT NULL,
                baseline_answer TEXT NOT NULL,
                candidate_answer TEXT NOT NULL,
                candidate_side VARCHAR(1) NOT NULL,
                created_at {timestamp} NOT NULL,
                CONSTRAINT abtest_comparisons_once UNIQUE (abtest_uid, evaluator, number)
            )
            """,
            "CREATE INDEX abtest_comparisons_created ON abtest_comparisons (created_at)",
            """
            CREATE TABLE abtest_votes (
                comparison_id VARCHAR(36) NOT NULL REFERENCES abtest_comparisons (id),
                evaluator VARCHAR(128) NOT NULL,
                abtest_uid VARCHAR(64) NOT NULL,
                choice VARCHAR(16) NOT NULL,
                late BOOLEAN NOT NULL,
                created_at {timestamp} NOT NULL,
                PRIMARY KEY (comparison_id, evaluator)
            )
            """,
            "CREATE INDEX abtest_votes_abtest ON abtest_votes (abtest_uid, late, choice)",
        ),
    ),
    Migration(
        2,
        (
            "ALTER TABLE training_progress ADD COLUMN eval_loss DOUBLE PRECISION",
            "ALTER TABLE training_progress ADD COLUMN grad_norm DOUBLE PRECISION",
            "ALTER TABLE training_progress ADD COLUMN tokens BIGINT",
            "ALTER TABLE training_progress ADD COLUMN tokens_per_second DOUBLE PRECISION",
            "ALTER TABLE training_progress ADD COLUMN gpu_memory_bytes BIGINT",
            "ALTER TABLE training_progress ADD COLUMN checkpoint_step BIGINT",
            "ALTER TABLE training_progress ADD COLUMN checkpoint_time {timestamp}",
        ),
    ),
    Migration(
        3,
        (
            "ALTER TABLE abtest_samples ADD COLUMN prompt_tokens INTEGER",
            "ALTER TABLE abtest_samples ADD COLUMN completion_tokens INTEGER",
        ),
    ),
    Migration(
        4,
        (
            """
            CREATE TABLE evaluations (
                id VARCHAR(64) PRIMARY KEY NOT NULL,
                source VARCHAR(16) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                model_version VARCHAR(253) NOT NULL,
                model VARCHAR(63) NOT NULL,
                base_model VARCHAR(128) NOT NULL,
                adapter_digest VARCHAR(71),
                dataset_digest VARCHAR(71),
                examples INTEGER,
                message TEXT,
                currency VARCHAR(16),
                measured_at {timestamp} NOT NULL
            )
            """,
            "CREATE INDEX evaluations_version ON evaluations (namespace, model_version, measured_at)",
            """
            CREATE TABLE evaluation_values (
                evaluation_id VARCHAR(64) NOT NULL REFERENCES evaluations (id),
                name VARCHAR(64) NOT NULL,
                base DOUBLE PRECISION NOT NULL,
                fine_tuned DOUBLE PRECISION NOT NULL,
                PRIMARY KEY (evaluation_id, name)
            )
            """,
        ),
    ),
    Migration(
        5,
        ("ALTER TABLE abtest_samples ADD COLUMN shadow BOOLEAN NOT NULL DEFAULT FALSE",),
    ),
    Migration(
        6,
        (
            """
            CREATE TABLE abtest_subjects (
                abtest_uid VARCHAR(64) NOT NULL,
                subject VARCHAR(16) NOT NULL,
                arm VARCHAR(16) NOT NULL,
                candidate_percent INTEGER NOT NULL,
                PRIMARY KEY (abtest_uid, subject)
            )
            """,
            """
            CREATE TABLE feedback (
                request_id VARCHAR(128) PRIMARY KEY NOT NULL,
                rating INTEGER NOT NULL,
                rating_id BIGINT,
                created_at {timestamp} NOT NULL
            )
            """,
        ),
    ),
    Migration(
        7,
        (
            "ALTER TABLE training_progress ADD COLUMN failed_rows BIGINT",
            "ALTER TABLE abtest_comparisons ADD COLUMN pair_id VARCHAR(36)",
            "CREATE INDEX abtest_comparisons_pair ON abtest_comparisons (pair_id)",
            """
            CREATE TABLE abtest_pairs (
                id VARCHAR(36) PRIMARY KEY NOT NULL,
                abtest_uid VARCHAR(64) NOT NULL,
                prompt TEXT NOT NULL,
                baseline_served_name VARCHAR(128) NOT NULL,
                candidate_served_name VARCHAR(128) NOT NULL,
                baseline_answer TEXT NOT NULL,
                candidate_answer TEXT NOT NULL
            )
            """,
            "CREATE INDEX abtest_pairs_abtest ON abtest_pairs (abtest_uid)",
        ),
    ),
    Migration(
        8,
        (
            "ALTER TABLE feedback ADD COLUMN version_uid VARCHAR(64)",
            "CREATE INDEX feedback_version ON feedback (version_uid, rating)",
            "ALTER TABLE feedback ADD COLUMN reference_score DOUBLE PRECISION",
        ),
    ),
)
