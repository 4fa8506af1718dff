"""Triggers that keep what each subject's answers sum up to. Frozen text of migration 18, as `migrations` says.

The answers of one subject are alike, so that it is subjects that count where arms are compared (`store.samples`). A
request of nobody in particular is a subject of its own.
"""

SUMS = ("answers", "latency_ms", "answers_with_tokens", "completion_tokens")
KEY = ("abtest_uid", "arm", "subject")
TABLE = """
    CREATE TABLE abtest_subject_sums (
        abtest_uid VARCHAR(64) NOT NULL,
        arm VARCHAR(16) NOT NULL,
        subject VARCHAR(128) NOT NULL,
        answers BIGINT NOT NULL,
        latency_ms DOUBLE PRECISION NOT NULL,
        answers_with_tokens BIGINT NOT NULL,
        completion_tokens DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (abtest_uid, arm, subject)
    )
"""


def _summed(source: str, sign: str) -> str:
    """The samples of a table, added to what their subjects have, or taken away again; in an order that all keep to."""
    number = "CAST({} AS DOUBLE PRECISION)"
    terms = {
        "answers": "count(*)",
        "latency_ms": f"sum({number.format('latency_ms')})",
        "answers_with_tokens": "count(completion_tokens)",
        "completion_tokens": f"sum({number.format('COALESCE(completion_tokens, 0)')})",
    }
    return f"""
        INSERT INTO abtest_subject_sums ({", ".join((*KEY, *SUMS))})
        SELECT abtest_uid, arm, COALESCE(subject, request_id), {", ".join(f"{sign}{terms[name]}" for name in SUMS)}
        FROM {source}
        WHERE NOT shadow AND status < 500
        GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        ON CONFLICT ({", ".join(KEY)}) DO UPDATE
        SET {", ".join(f"{name} = abtest_subject_sums.{name} + excluded.{name}" for name in SUMS)}
    """  # noqa: S608 - of words that are written here


STATEMENTS = (TABLE, _summed("abtest_samples", ""))
_EVENTS = (("INSERT", "NEW", ""), ("DELETE", "OLD", "-"))
_READ = ("abtest_uid", "arm", "subject", "request_id", "status", "latency_ms", "completion_tokens", "shadow")


def _of_one(row: str) -> str:
    return f"(SELECT {', '.join(f'{row}.{name}' for name in _READ)}) AS changed"


def sqlite_statements() -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER abtest_samples_subjects_{event.lower()} AFTER {event} ON abtest_samples BEGIN "
        f"{_summed(_of_one(row), sign)}; END"
        for event, row, sign in _EVENTS
    )


def postgresql_statements() -> tuple[str, ...]:
    return tuple(
        statement
        for event, row, sign in _EVENTS
        for statement in (
            f"""
            CREATE FUNCTION abtest_samples_subjects_{event.lower()}() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN {_summed("changed", sign)}; RETURN NULL; END $$
            """,
            f"""
            CREATE TRIGGER abtest_samples_subjects_{event.lower()} AFTER {event} ON abtest_samples
            REFERENCING {row} TABLE AS changed FOR EACH STATEMENT
            EXECUTE FUNCTION abtest_samples_subjects_{event.lower()}()
            """,
        )
    )


LOCK = "LOCK TABLE abtest_samples IN SHARE ROW EXCLUSIVE MODE"
