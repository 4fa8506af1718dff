"""Steps nine to thirteen of the schema's history, which `migrations` applies. Frozen as all of them."""

from finetune_operator.store.early_migrations import Migration


def _count(row: str, sign: str) -> tuple[str, str]:
    """What a comparison and a vote that come (`+`) or go (`-`) change in the counts of their test."""
    # The test's row is there by then: a vote needs its comparison.
    of_comparison = f"""
        INSERT INTO abtest_counts (abtest_uid, comparisons, fine_tuned, base, tie, both_bad, late)
        VALUES ({row}.abtest_uid, {sign}1, 0, 0, 0, 0, 0)
        ON CONFLICT (abtest_uid) DO UPDATE SET comparisons = abtest_counts.comparisons {sign} 1;
    """  # noqa: S608 - of words that are written here
    added = (
        f"{column} = {column} {sign} CASE WHEN NOT {row}.late AND {row}.choice = '{column}' THEN 1 ELSE 0 END"
        for column in ("fine_tuned", "base", "tie", "both_bad")
    )
    of_vote = f"""
        UPDATE abtest_counts
        SET {", ".join(added)}, late = late {sign} CASE WHEN {row}.late THEN 1 ELSE 0 END
        WHERE abtest_uid = {row}.abtest_uid;
    """  # noqa: S608
    return of_comparison, of_vote


def _sqlite_counters() -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN {change} END"
        for event, row, sign in (("INSERT", "NEW", "+"), ("DELETE", "OLD", "-"))
        for table, change in zip(("abtest_comparisons", "abtest_votes"), _count(row, sign), strict=True)
    )


def _postgresql_counters() -> tuple[str, ...]:
    return tuple(
        statement
        for event, row, sign in (("INSERT", "NEW", "+"), ("DELETE", "OLD", "-"))
        for table, change in zip(("abtest_comparisons", "abtest_votes"), _count(row, sign), strict=True)
        for statement in (
            f"""
            CREATE FUNCTION {table}_{event.lower()}() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN {change} RETURN NULL; END $$
            """,
            f"""
            CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table}
            FOR EACH ROW EXECUTE FUNCTION {table}_{event.lower()}()
            """,
        )
    )


MIDDLE_MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        9,
        (
            """
            CREATE TABLE abtest_counts (
                abtest_uid VARCHAR(64) PRIMARY KEY NOT NULL,
                comparisons BIGINT NOT NULL,
                fine_tuned BIGINT NOT NULL,
                base BIGINT NOT NULL,
                tie BIGINT NOT NULL,
                both_bad BIGINT NOT NULL,
                late BIGINT NOT NULL
            )
            """,
            """
            INSERT INTO abtest_counts (abtest_uid, comparisons, fine_tuned, base, tie, both_bad, late)
            SELECT
                comparison.abtest_uid,
                count(*),
                count(CASE WHEN NOT vote.late AND vote.choice = 'fine_tuned' THEN 1 END),
                count(CASE WHEN NOT vote.late AND vote.choice = 'base' THEN 1 END),
                count(CASE WHEN NOT vote.late AND vote.choice = 'tie' THEN 1 END),
                count(CASE WHEN NOT vote.late AND vote.choice = 'both_bad' THEN 1 END),
                count(CASE WHEN vote.late THEN 1 END)
            FROM abtest_comparisons AS comparison
            LEFT JOIN abtest_votes AS vote ON vote.comparison_id = comparison.id
            GROUP BY comparison.abtest_uid
            """,
            "DROP INDEX abtest_votes_abtest",
            "CREATE INDEX abtest_votes_order ON abtest_votes (abtest_uid, late, created_at, comparison_id, choice)",
            "CREATE INDEX abtest_comparisons_test ON abtest_comparisons (namespace, name, created_at)",
            """
            CREATE TABLE resources (
                plural VARCHAR(32) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                name VARCHAR(253) NOT NULL,
                uid VARCHAR(64) NOT NULL,
                resource_version BIGINT NOT NULL,
                created VARCHAR(32) NOT NULL,
                model VARCHAR(253),
                state VARCHAR(32),
                philosopher VARCHAR(256),
                domain VARCHAR(256),
                job_uid VARCHAR(64),
                attached TEXT,
                engine VARCHAR(253),
                body JSON NOT NULL,
                PRIMARY KEY (plural, namespace, name)
            )
            """,
            """
            CREATE INDEX resources_newest
            ON resources (plural, created, namespace, name, model, state, philosopher, domain, job_uid)
            """,
            "CREATE INDEX resources_uid ON resources (uid)",
            "CREATE INDEX resources_engine ON resources (engine)",
            "CREATE INDEX resources_model ON resources (plural, namespace, model)",
            """
            CREATE TABLE deployment_history (
                version_uid VARCHAR(64) NOT NULL,
                time {timestamp} NOT NULL,
                state VARCHAR(32) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                model VARCHAR(253) NOT NULL,
                model_version VARCHAR(253) NOT NULL,
                who VARCHAR(256),
                why TEXT NOT NULL,
                previous VARCHAR(253),
                PRIMARY KEY (version_uid, time, state)
            )
            """,
            "CREATE INDEX deployment_history_model ON deployment_history (namespace, model, time)",
            """
            CREATE VIEW training_jobs AS
            SELECT
                uid,
                namespace,
                name,
                model,
                body -> 'spec' -> 'baseModel' ->> 'name' AS base_model,
                COALESCE(body -> 'spec' ->> 'method', 'SFT') AS method,
                COALESCE(body -> 'spec' ->> 'backend', 'Unsloth') AS backend,
                philosopher,
                domain,
                state AS status,
                body -> 'status' ->> 'message' AS message,
                CAST(body -> 'status' -> 'progress' ->> 'percent' AS INTEGER) AS percent,
                CAST(body -> 'status' -> 'dataset' ->> 'rows' AS INTEGER) AS training_examples,
                body -> 'status' -> 'dataset' ->> 'digest' AS dataset_digest,
                body -> 'status' -> 'result' ->> 'finalLoss' AS final_loss,
                body -> 'status' -> 'cost' ->> 'spent' AS cost,
                body -> 'status' -> 'cost' ->> 'currency' AS currency,
                body -> 'status' ->> 'modelVersion' AS model_version,
                created AS created_at,
                body -> 'status' ->> 'startTime' AS started_at,
                body -> 'status' ->> 'completionTime' AS finished_at
            FROM resources
            WHERE plural = 'finetunejobs'
            """,
            """
            CREATE VIEW fine_tuned_models AS
            SELECT
                version.uid,
                version.namespace,
                version.name,
                version.model,
                CAST(version.body -> 'spec' ->> 'version' AS INTEGER) AS version,
                version.body -> 'spec' -> 'baseModel' ->> 'name' AS base_model,
                version.state,
                training.philosopher,
                training.domain,
                version.body -> 'spec' -> 'artifact' ->> 'uri' AS artifact_uri,
                version.body -> 'spec' -> 'artifact' ->> 'digest' AS artifact_digest,
                version.body -> 'spec' -> 'lineage' ->> 'fineTuneJob' AS training_job,
                version.job_uid AS training_job_uid,
                version.body -> 'spec' ->> 'notes' AS notes,
                version.body -> 'status' ->> 'replicas' AS replicas,
                version.body -> 'status' -> 'metrics' ->> 'winRate' AS win_rate,
                CAST(version.body -> 'status' -> 'metrics' ->> 'elo' AS INTEGER) AS elo,
                version.created AS created_at,
                version.body -> 'status' ->> 'promotedAt' AS promoted_at
            FROM resources AS version
            LEFT JOIN resources AS training ON training.uid = version.job_uid AND training.plural = 'finetunejobs'
            WHERE version.plural = 'modelversions'
            """,
            """
            CREATE VIEW model_comparisons AS
            SELECT
                comparison.id,
                comparison.abtest_uid,
                comparison.namespace,
                comparison.name AS abtest,
                comparison.evaluator,
                comparison.prompt,
                comparison.baseline_served_name AS base_model,
                comparison.candidate_served_name AS fine_tuned_model,
                comparison.baseline_answer AS base_response,
                comparison.candidate_answer AS fine_tuned_response,
                vote.choice AS vote,
                vote.late,
                comparison.created_at,
                vote.created_at AS voted_at
            FROM abtest_comparisons AS comparison
            LEFT JOIN abtest_votes AS vote
            ON vote.comparison_id = comparison.id AND vote.evaluator = comparison.evaluator
            """,
        ),
        {"sqlite": _sqlite_counters(), "postgresql": _postgresql_counters()},
        # A vote that an api of an older release writes between the counting and the triggers would never be counted.
        before={"postgresql": ("LOCK TABLE abtest_comparisons, abtest_votes IN SHARE ROW EXCLUSIVE MODE",)},
    ),
    Migration(
        10,
        (
            """
            CREATE TABLE version_usage (
                version_uid VARCHAR(64) NOT NULL,
                day DATE NOT NULL,
                reporter VARCHAR(64) NOT NULL,
                calls BIGINT NOT NULL,
                failed BIGINT NOT NULL,
                calls_with_tokens BIGINT NOT NULL,
                prompt_tokens BIGINT NOT NULL,
                completion_tokens BIGINT NOT NULL,
                PRIMARY KEY (version_uid, day, reporter)
            )
            """,
        ),
    ),
    Migration(
        11,
        (
            """
            CREATE TABLE api_keys (
                id VARCHAR(16) PRIMARY KEY NOT NULL,
                digest VARCHAR(64) NOT NULL,
                name VARCHAR(128) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                service_account VARCHAR(253) NOT NULL,
                created_by TEXT NOT NULL,
                created_at {timestamp} NOT NULL,
                expires_at {timestamp} NOT NULL,
                last_used_at {timestamp},
                revoked_at {timestamp},
                revoked_by TEXT
            )
            """,
            "CREATE INDEX api_keys_account ON api_keys (namespace, service_account)",
        ),
    ),
    Migration(
        12,
        (
            """
            CREATE TABLE training_logs (
                job_uid VARCHAR(64) NOT NULL,
                container VARCHAR(63) NOT NULL,
                namespace VARCHAR(63) NOT NULL,
                name VARCHAR(253) NOT NULL,
                text TEXT NOT NULL,
                time {timestamp} NOT NULL,
                PRIMARY KEY (job_uid, container)
            )
            """,
            "CREATE INDEX training_logs_time ON training_logs (time)",
        ),
    ),
    Migration(
        13,
        (
            # Only a list of the cluster says what the new columns have to be: each api reads one as it starts.
            "ALTER TABLE resources ADD COLUMN requested VARCHAR(32)",
            "ALTER TABLE resources ADD COLUMN currency VARCHAR(16)",
            "ALTER TABLE resources ADD COLUMN amount_micros BIGINT",
            "ALTER TABLE resources ADD COLUMN is_unpriced BOOLEAN NOT NULL DEFAULT FALSE",
            "ALTER TABLE resources ADD COLUMN is_over_budget BOOLEAN NOT NULL DEFAULT FALSE",
            "ALTER TABLE resources ADD COLUMN win_rate DOUBLE PRECISION",
            "DROP INDEX resources_model",
            "CREATE INDEX resources_model ON resources (plural, namespace, model, engine, requested)",
            "CREATE INDEX resources_origin ON resources (plural, philosopher, domain, namespace, uid)",
            "CREATE INDEX resources_training ON resources (plural, job_uid, namespace)",
            "CREATE INDEX resources_state ON resources (plural, state, created, namespace, name, uid)",
            """
            CREATE INDEX resources_sums ON resources (
                plural, namespace, currency, state, amount_micros, is_unpriced, is_over_budget, win_rate
            )
            """,
            "CREATE INDEX abtest_comparisons_namespace ON abtest_comparisons (namespace, created_at)",
        ),
    ),
)
