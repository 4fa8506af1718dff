"""Triggers that keep a version's row when it goes from `resources`, whoever drops it. Frozen text of migration 19.

What its answers cost stays spent. A row that comes back is marked: it counts where it is.
"""

TABLE = (
    """
    CREATE TABLE deleted_versions (
        uid VARCHAR(64) PRIMARY KEY NOT NULL,
        namespace VARCHAR(63) NOT NULL,
        name VARCHAR(253) NOT NULL,
        resource_version BIGINT NOT NULL,
        model VARCHAR(253),
        currency VARCHAR(16),
        amount_micros BIGINT,
        body JSON NOT NULL,
        deleted_at {timestamp} NOT NULL,
        is_back BOOLEAN NOT NULL
    )
    """,
    "CREATE INDEX deleted_versions_newest ON deleted_versions (deleted_at, uid, is_back, namespace, model)",
)
KEPT = "namespace", "name", "resource_version", "model", "currency", "amount_micros", "body"
NOW = {"sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "postgresql": "now()"}
"""On SQLite in the form in which SQLAlchemy writes a time."""
COMES = "UPDATE deleted_versions SET is_back = TRUE WHERE uid = NEW.uid;"


def _goes(dialect: str) -> str:
    """An older state than the one that is known changes no price."""
    columns = ", ".join(KEPT)
    values = ", ".join(f"OLD.{column}" for column in KEPT)
    newer = ", ".join(f"{column} = excluded.{column}" for column in KEPT)
    return f"""
        INSERT INTO deleted_versions (uid, {columns}, deleted_at, is_back)
        VALUES (OLD.uid, {values}, {NOW[dialect]}, FALSE)
        ON CONFLICT (uid) DO UPDATE SET {newer}
        WHERE excluded.resource_version >= deleted_versions.resource_version;
        UPDATE deleted_versions SET deleted_at = {NOW[dialect]}, is_back = FALSE WHERE uid = OLD.uid;
    """  # noqa: S608 - of words that are written here


def _triggers(dialect: str) -> tuple[tuple[str, str, str, str], ...]:
    """Name, event, condition and what it does."""
    goes = _goes(dialect)
    is_successor = "OLD.plural = 'modelversions' AND OLD.uid <> NEW.uid"
    return (
        ("resources_version_comes", "INSERT", "NEW.plural = 'modelversions'", COMES),
        ("resources_version_goes", "DELETE", "OLD.plural = 'modelversions'", goes),
        ("resources_version_follows", "UPDATE OF uid", is_successor, goes + COMES),
    )


def sqlite_statements() -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER {name} AFTER {event} ON resources WHEN {condition} BEGIN {change} END"
        for name, event, condition, change in _triggers("sqlite")
    )


def postgresql_statements() -> tuple[str, ...]:
    return tuple(
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
    )
