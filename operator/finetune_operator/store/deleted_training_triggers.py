"""Triggers that keep a training's row when it goes from `resources`, whoever drops it. Frozen text of migration 17.

What was spent stays spent. A row that comes back, since the cluster was restored or an api was late, is marked: it
counts where it is.
"""

TABLE = (
    """
    CREATE TABLE deleted_trainings (
        uid VARCHAR(64) PRIMARY KEY NOT NULL,
        namespace VARCHAR(63) NOT NULL,
        name VARCHAR(253) NOT NULL,
        resource_version BIGINT NOT NULL,
        created VARCHAR(32) NOT NULL,
        model VARCHAR(253),
        state VARCHAR(32),
        philosopher VARCHAR(256),
        domain VARCHAR(256),
        currency VARCHAR(16),
        amount_micros BIGINT,
        is_unpriced BOOLEAN NOT NULL,
        body JSON NOT NULL,
        deleted_at {timestamp} NOT NULL,
        is_back BOOLEAN NOT NULL
    )
    """,
    """
    CREATE INDEX deleted_trainings_sums
    ON deleted_trainings (is_back, namespace, currency, amount_micros, is_unpriced)
    """,
    "CREATE INDEX deleted_trainings_newest ON deleted_trainings (deleted_at, uid, is_back, namespace, model)",
    "CREATE INDEX deleted_trainings_origin ON deleted_trainings (philosopher, domain, namespace, uid)",
)
KEPT = (
    "namespace", "name", "resource_version", "created", "model", "state", "philosopher", "domain", "currency",
    "amount_micros", "is_unpriced", "body",
)  # fmt: skip
NOW = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "postgresql": "now()"}
"""On SQLite in the form in which SQLAlchemy writes a time."""
IS_TRAINING = {"INSERT": "NEW.plural = 'finetunejobs'", "DELETE": "OLD.plural = 'finetunejobs'"}
IS_SUCCESSOR = "OLD.plural = 'finetunejobs' AND OLD.uid <> NEW.uid"

TRAINING_JOBS = """
    training_jobs AS
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
        CAST(
            CASE WHEN deleted_at IS NULL OR state IN ('completed', 'failed') THEN state ELSE 'cancelled' END
            AS VARCHAR(32)
        ) AS status,
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
        body -> 'status' ->> 'completionTime' AS finished_at,
        deleted_at
    FROM (
        SELECT
            uid, namespace, name, model, philosopher, domain, state, created, body,
            CAST(NULL AS {timestamp}) AS deleted_at
        FROM resources
        WHERE plural = 'finetunejobs'
        UNION ALL
        SELECT uid, namespace, name, model, philosopher, domain, state, created, body, deleted_at
        FROM deleted_trainings
        WHERE NOT is_back
    ) AS training
"""
FINE_TUNED_MODELS = """
    fine_tuned_models AS
    SELECT
        version.uid,
        version.namespace,
        version.name,
        version.model,
        CAST(version.body -> 'spec' ->> 'version' AS INTEGER) AS version,
        version.body -> 'spec' -> 'baseModel' ->> 'name' AS base_model,
        version.state,
        COALESCE(training.philosopher, deleted.philosopher) AS philosopher,
        COALESCE(training.domain, deleted.domain) AS domain,
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
    LEFT JOIN deleted_trainings AS deleted ON deleted.uid = version.job_uid
    WHERE version.plural = 'modelversions'
"""


def _goes(dialect: str) -> str:
    """An older state than the one that is known changes no amount."""
    columns = ", ".join(KEPT)
    values = ", ".join(f"OLD.{column}" for column in KEPT)
    newer = ", ".join(f"{column} = excluded.{column}" for column in KEPT)
    return f"""
        INSERT INTO deleted_trainings (uid, {columns}, deleted_at, is_back)
        VALUES (OLD.uid, {values}, {NOW[dialect]}, FALSE)
        ON CONFLICT (uid) DO UPDATE SET {newer}
        WHERE excluded.resource_version >= deleted_trainings.resource_version;
        UPDATE deleted_trainings SET deleted_at = {NOW[dialect]}, is_back = FALSE WHERE uid = OLD.uid;
    """  # noqa: S608 - of words that are written here


COMES = "UPDATE deleted_trainings SET is_back = TRUE WHERE uid = NEW.uid;"


def _triggers(dialect: str) -> tuple[tuple[str, str, str, str], ...]:
    """Name, event, condition and what it does."""
    goes = _goes(dialect)
    return (
        ("resources_training_comes", "INSERT", IS_TRAINING["INSERT"], COMES),
        ("resources_training_goes", "DELETE", IS_TRAINING["DELETE"], goes),
        ("resources_training_follows", "UPDATE OF uid", IS_SUCCESSOR, goes + COMES),
    )


def sqlite_statements() -> tuple[str, ...]:
    """The triggers and the views."""
    return (
        *(
            f"CREATE TRIGGER {name} AFTER {event} ON resources WHEN {condition} BEGIN {change} END"
            for name, event, condition, change in _triggers("sqlite")
        ),
        "DROP VIEW training_jobs",
        f"CREATE VIEW {TRAINING_JOBS}",
        "DROP VIEW fine_tuned_models",
        f"CREATE VIEW {FINE_TUNED_MODELS}",
    )


def postgresql_statements() -> tuple[str, ...]:
    """As on SQLite; views are replaced in place, since others may read them, and build on them."""
    return (
        *(
            statement
            for name, event, condition, change in _triggers("postgresql")
            for statement in (
                f"""
                CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN {change} RETURN NULL; END $$
                """,
                f"""
                CREATE TRIGGER {name} AFTER {event} ON resources
                FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()
                """,
            )
        ),
        f"CREATE OR REPLACE VIEW {TRAINING_JOBS}",
        f"CREATE OR REPLACE VIEW {FINE_TUNED_MODELS}",
    )
