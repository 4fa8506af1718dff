"""Triggers that keep what votes and samples sum up to, and what they make of the rows that are there already.

Frozen text of migrations 14 and 15, as `migrations` says; one row that is written changes some sums, however many there
are. Which votes count is what the two differ in: of a pair of answers, since 15, the first one alone.
"""

from typing import NamedTuple

CHOICES = ("fine_tuned", "base", "tie", "both_bad")
TABLES = (
    """
    CREATE TABLE abtest_vote_log (
        abtest_uid VARCHAR(64) NOT NULL,
        number BIGINT NOT NULL,
        created_at {timestamp} NOT NULL,
        fine_tuned BIGINT NOT NULL,
        base BIGINT NOT NULL,
        tie BIGINT NOT NULL,
        both_bad BIGINT NOT NULL,
        PRIMARY KEY (abtest_uid, number)
    )
    """,
    """
    CREATE TABLE abtest_voters (
        abtest_uid VARCHAR(64) NOT NULL,
        evaluator VARCHAR(128) NOT NULL,
        votes BIGINT NOT NULL,
        fine_tuned BIGINT NOT NULL,
        base BIGINT NOT NULL,
        tie BIGINT NOT NULL,
        both_bad BIGINT NOT NULL,
        PRIMARY KEY (abtest_uid, evaluator)
    )
    """,
    """
    CREATE TABLE abtest_arm_sums (
        abtest_uid VARCHAR(64) NOT NULL,
        arm VARCHAR(16) NOT NULL,
        samples BIGINT NOT NULL,
        errors BIGINT NOT NULL,
        latency_ms DOUBLE PRECISION NOT NULL,
        latency_ms_squared DOUBLE PRECISION NOT NULL,
        samples_with_tokens BIGINT NOT NULL,
        prompted_samples BIGINT NOT NULL,
        prompt_tokens DOUBLE PRECISION NOT NULL,
        completion_tokens DOUBLE PRECISION NOT NULL,
        completion_tokens_squared DOUBLE PRECISION NOT NULL,
        shadow_samples BIGINT NOT NULL,
        shadow_errors BIGINT NOT NULL,
        shadow_latency_ms DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (abtest_uid, arm)
    )
    """,
)
VOTERS_INDEX = "CREATE INDEX abtest_voters_heaviest ON abtest_voters (abtest_uid, votes, evaluator)"
SUMS = (
    "samples", "errors", "latency_ms", "latency_ms_squared", "samples_with_tokens", "prompted_samples",
    "prompt_tokens", "completion_tokens", "completion_tokens_squared", "shadow_samples", "shadow_errors",
    "shadow_latency_ms",
)  # fmt: skip


def _choices(prefix: str, aggregate: str) -> str:
    """One column for each choice, of a row or of many."""
    ones = (f"CASE WHEN {prefix}choice = '{choice}' THEN 1 ELSE 0 END" for choice in CHOICES)
    return ", ".join(aggregate.format(one) for one in ones)


class CountedVotes(NamedTuple):
    """Which votes count, as a condition on a row of that name; `aside` says how the others are counted, by column."""

    condition: str
    aside: tuple[tuple[str, str], ...]


BEFORE_THE_VERDICT = CountedVotes("NOT {row}.late", (("late", "{row}.late"),))
FIRST_OF_THEIR_PAIR = CountedVotes(
    "NOT {row}.late AND NOT {row}.second_opinion",
    (*BEFORE_THE_VERDICT.aside, ("second_opinions", "{row}.second_opinion")),
)


def votes_of_before(counted: CountedVotes) -> tuple[str, str]:
    """The log and the voters' sums, of the votes that are there already."""
    condition = counted.condition.format(row="abtest_votes")
    return (
        f"""
        INSERT INTO abtest_vote_log (abtest_uid, number, created_at, {", ".join(CHOICES)})
        SELECT abtest_uid, row_number() OVER so_far, created_at, {_choices("", "sum({}) OVER so_far")}
        FROM abtest_votes
        WHERE {condition}
        WINDOW so_far AS (PARTITION BY abtest_uid ORDER BY created_at, comparison_id ROWS UNBOUNDED PRECEDING)
        """,  # noqa: S608 - of words that are written here
        f"""
        INSERT INTO abtest_voters (abtest_uid, evaluator, votes, {", ".join(CHOICES)})
        SELECT abtest_uid, evaluator, count(*), {_choices("", "sum({})")}
        FROM abtest_votes
        WHERE {condition}
        GROUP BY abtest_uid, evaluator
        """,  # noqa: S608
    )


def _counts(counted: CountedVotes, row: str, sign: str) -> str:
    """Of the test."""
    condition = counted.condition.format(row=row)
    ones = [(column, f"{condition} AND {row}.choice = '{column}'") for column in CHOICES]
    ones += [(column, which.format(row=row)) for column, which in counted.aside]
    added = (f"{column} = {column} {sign} CASE WHEN {which} THEN 1 ELSE 0 END" for column, which in ones)
    return f"UPDATE abtest_counts SET {', '.join(added)} WHERE abtest_uid = {row}.abtest_uid;"  # noqa: S608


def _vote_comes(counted: CountedVotes) -> str:
    """Votes of a test wait for each other at its counts, so that each finds the number of its own there."""
    condition = counted.condition.format(row="NEW")
    return f"""
        {_counts(counted, "NEW", "+")}
        INSERT INTO abtest_vote_log (abtest_uid, number, created_at, {", ".join(CHOICES)})
        SELECT abtest_uid, {" + ".join(CHOICES)}, NEW.created_at, {", ".join(CHOICES)}
        FROM abtest_counts
        WHERE abtest_uid = NEW.abtest_uid AND {condition}
        ON CONFLICT (abtest_uid, number) DO NOTHING;
        INSERT INTO abtest_voters (abtest_uid, evaluator, votes, {", ".join(CHOICES)})
        SELECT NEW.abtest_uid, NEW.evaluator, 1, {_choices("NEW.", "{}")} WHERE {condition}
        ON CONFLICT (abtest_uid, evaluator) DO UPDATE SET votes = abtest_voters.votes + 1,
        {", ".join(f"{each} = abtest_voters.{each} + excluded.{each}" for each in CHOICES)};
    """  # noqa: S608


def _vote_goes(counted: CountedVotes) -> str:
    condition = counted.condition.format(row="OLD")
    return f"""
        {_counts(counted, "OLD", "-")}
        DELETE FROM abtest_vote_log WHERE abtest_uid = OLD.abtest_uid AND {condition};
        UPDATE abtest_voters SET votes = votes - 1,
        {", ".join(f"{each} = {each} - CASE WHEN OLD.choice = '{each}' THEN 1 ELSE 0 END" for each in CHOICES)}
        WHERE abtest_uid = OLD.abtest_uid AND evaluator = OLD.evaluator AND {condition};
        DELETE FROM abtest_voters
        WHERE abtest_uid = OLD.abtest_uid AND evaluator = OLD.evaluator AND votes = 0 AND {condition};
    """  # noqa: S608


def _summed(source: str, sign: str) -> str:
    """The samples of a table, added to what their arms have, or taken away again; in an order that all keep to."""
    own, copied = "NOT shadow AND status < 500", "shadow AND status < 500"
    has_tokens = f"{own} AND completion_tokens IS NOT NULL"
    number = "CAST({} AS DOUBLE PRECISION)"
    squares = {name: f"{number.format(name)} * {number.format(name)}" for name in ("latency_ms", "completion_tokens")}
    terms = {
        "samples": "CASE WHEN NOT shadow THEN 1 ELSE 0 END",
        "errors": "CASE WHEN NOT shadow AND status >= 500 THEN 1 ELSE 0 END",
        "latency_ms": f"CASE WHEN {own} THEN {number.format('latency_ms')} ELSE 0 END",
        "latency_ms_squared": f"CASE WHEN {own} THEN {squares['latency_ms']} ELSE 0 END",
        "samples_with_tokens": f"CASE WHEN {has_tokens} THEN 1 ELSE 0 END",
        "prompted_samples": f"CASE WHEN {has_tokens} AND prompt_tokens IS NOT NULL THEN 1 ELSE 0 END",
        "prompt_tokens": f"CASE WHEN {has_tokens} THEN {number.format('COALESCE(prompt_tokens, 0)')} ELSE 0 END",
        "completion_tokens": f"CASE WHEN {has_tokens} THEN {number.format('completion_tokens')} ELSE 0 END",
        "completion_tokens_squared": f"CASE WHEN {has_tokens} THEN {squares['completion_tokens']} ELSE 0 END",
        "shadow_samples": "CASE WHEN shadow THEN 1 ELSE 0 END",
        "shadow_errors": "CASE WHEN shadow AND status >= 500 THEN 1 ELSE 0 END",
        "shadow_latency_ms": f"CASE WHEN {copied} THEN {number.format('latency_ms')} ELSE 0 END",
    }
    changed = (f"{name} = abtest_arm_sums.{name} + excluded.{name}" for name in SUMS)
    return f"""
        INSERT INTO abtest_arm_sums (abtest_uid, arm, {", ".join(SUMS)})
        SELECT abtest_uid, arm, {", ".join(f"{sign}sum({terms[name]})" for name in SUMS)}
        FROM {source}
        GROUP BY abtest_uid, arm
        ORDER BY abtest_uid, arm
        ON CONFLICT (abtest_uid, arm) DO UPDATE SET {", ".join(changed)}
    """  # noqa: S608


SAMPLES_OF_BEFORE = _summed("abtest_samples WHERE TRUE", "")
_EVENTS = (("INSERT", "NEW", ""), ("DELETE", "OLD", "-"))
_OF_ONE = "(SELECT {0}.abtest_uid, {0}.arm, {0}.status, {0}.latency_ms, {0}.prompt_tokens, {0}.completion_tokens, \
{0}.shadow) AS changed WHERE TRUE"


def sqlite_vote_triggers(counted: CountedVotes) -> tuple[str, ...]:
    return (
        "DROP TRIGGER abtest_votes_insert",
        "DROP TRIGGER abtest_votes_delete",
        f"CREATE TRIGGER abtest_votes_insert AFTER INSERT ON abtest_votes BEGIN {_vote_comes(counted)} END",
        f"CREATE TRIGGER abtest_votes_delete AFTER DELETE ON abtest_votes BEGIN {_vote_goes(counted)} END",
    )


def postgresql_vote_triggers(counted: CountedVotes) -> tuple[str, ...]:
    return tuple(
        f"""
        CREATE OR REPLACE FUNCTION abtest_votes_{event}() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN {change} RETURN NULL; END $$
        """
        for event, change in (("insert", _vote_comes(counted)), ("delete", _vote_goes(counted)))
    )


def sqlite_sample_triggers() -> tuple[str, ...]:
    return tuple(
        f"CREATE TRIGGER abtest_samples_{event.lower()} AFTER {event} ON abtest_samples "
        f"BEGIN {_summed(_OF_ONE.format(row), sign)}; END"
        for event, row, sign in _EVENTS
    )


def postgresql_sample_triggers() -> tuple[str, ...]:
    return tuple(
        statement
        for event, row, sign in _EVENTS
        for statement in (
            f"""
            CREATE FUNCTION abtest_samples_{event.lower()}() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN {_summed("changed WHERE TRUE", sign)}; RETURN NULL; END $$
            """,
            f"""
            CREATE TRIGGER abtest_samples_{event.lower()} AFTER {event} ON abtest_samples
            REFERENCING {row} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION abtest_samples_{event.lower()}()
            """,
        )
    )
