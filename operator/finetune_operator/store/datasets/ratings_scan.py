"""Ratings to lines by DuckDB's scanners: filters, quality rules, pairs and formats as one SQL statement.

The statement gives one text column. A row that is kept is its prompt's key and its line, as `store.datasets.spool`
wants it; one that is left out is `!!<reason> <count> <id>`. Everything that a user sets is a bound parameter. What the
statement must do is said by `core.datasets`, and a property test compares both.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import duckdb

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.dataset_records import PAIR_FORMATS, Format
from finetune_operator.core.datasets import WHITESPACE, DropReason
from finetune_operator.logs import get_logger
from finetune_operator.store.datasets.engine import ROOMS, Room, identifier, line_blocks, literal, load_scanner, opened
from finetune_operator.store.datasets.part_files import KEY_BYTES
from finetune_operator.store.datasets.space import storage_exceeded
from finetune_operator.store.datasets.spool import DROPPED_MARK, Spool
from finetune_operator.store.ratings import (
    MESSAGE_MAX_CHARACTERS,
    OPTIONAL_COLUMNS,
    TABLE,
    RatingsDatabase,
    is_writable,
    unreachable,
)
from finetune_operator.store.urls import conninfo, shown, without_secrets

RETRY_SECONDS = 1.0
SCANS_MAX = 4
UTF8_MAX_BYTES = 4
# A server that went away without a word is noticed after two minutes, instead of the system's two hours.
POSTGRESQL_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
# What libpq and SQLite say of a state that passes; the scanners raise several types of error for each.
PASSING_WORDS = (
    "server closed the connection",
    "terminating connection",
    "connection to server",
    "no connection to the server",
    "could not receive data",
    "could not send data",
    "connection has been closed",
    "connection reset",
    "connection timed out",
    "database system is",
    "database is locked",
)
FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "max_temp_directory_size")
# Another application's table, or a view, may have ids that are texts, or none.
_SHOWN_ID = "replace(coalesce(id::VARCHAR, '(no id)'), chr(10), ' ')"

Parameters = Mapping[str, str | int | float]

logger = get_logger(__name__)


class Statement(NamedTuple):
    """SQL and the values it is run with."""

    sql: str
    parameters: Parameters


def spool_ratings(
    database: RatingsDatabase, source: RatingsSource, config: DatasetConfig, record_format: Format, work: Path
) -> Spool:
    """Read all rows. Where the connection is lost, begin anew: as long as the database's patience while it can't be
    reached, and `SCANS_MAX` times while each scan gets further than nothing. Where memory lacks, begin anew with more
    of it. Raises `Refused`.
    """
    scans = 1
    rooms = list(ROOMS)
    deadline = time.monotonic() + database.timeout_seconds
    while True:
        spool = Spool(work, config.max_bytes)
        try:
            _scan(database, source, config, record_format, work, spool, rooms[0])
        except duckdb.Error as error:
            if _lacked_memory(error) and len(rooms) > 1:
                spool.close()
                del rooms[0]
                continue
            if spool.rows or spool.dropped.counts:
                scans += 1
                deadline = time.monotonic() + database.timeout_seconds
            spool.close()
            if not _may_pass(error) or scans > SCANS_MAX or time.monotonic() >= deadline:
                raise _failed(database, error) from None
            logger.warning("reading begins anew", database=shown(database.url), error=_words(database, error))
            time.sleep(RETRY_SECONDS)
        except BaseException:
            spool.close()
            raise
        else:
            return spool


def _scan(
    database: RatingsDatabase,
    source: RatingsSource,
    config: DatasetConfig,
    record_format: Format,
    work: Path,
    spool: Spool,
    room: Room,
) -> None:
    with opened(work, room) as connection:
        load_scanner(connection, database.url.backend)
        table = _attach(connection, database, work)
        statement = _statement(connection, database, table, source, config, record_format)
        with closing(line_blocks(connection, *statement)) as found:
            for block in found:
                spool.add(block)


def _attach(connection: duckdb.DuckDBPyConnection, database: RatingsDatabase, work: Path) -> str:
    """Make the ratings readable; returns the table's name."""
    url = database.url
    if url.backend == "sqlite":
        # SQLite's columns hold what they like: as text, each value can be judged by itself.
        connection.execute("SET GLOBAL sqlite_all_varchar = true")
        connection.execute(
            f"ATTACH {literal(str(_readable(Path(str(url.database)), work)))} AS source (TYPE sqlite, READ_ONLY)"
        )
        return f"source.{TABLE}"
    connection.execute(
        f"ATTACH {literal(conninfo(POSTGRESQL_DEFAULTS | url.parameters))} AS source (TYPE postgres, READ_ONLY)"
    )
    return f"source.{identifier(database.table.schema)}.{TABLE}"


def _readable(database: Path, work: Path) -> Path:
    """Where nothing can be written beside a database with a write-ahead log, SQLite can open only a copy of it."""
    if is_writable(database.parent):
        return database
    return Path(shutil.copyfile(database, work / "ratings.db"))


def _statement(
    connection: duckdb.DuckDBPyConnection,
    database: RatingsDatabase,
    table: str,
    source: RatingsSource,
    config: DatasetConfig,
    record_format: Format,
) -> Statement:
    pairs = record_format in PAIR_FORMATS
    conditions, parameters = _conditions(database, source, all_ratings=pairs or record_format == "Gauntlet")
    low = "FALSE" if pairs or record_format == "Gauntlet" else f"rating < {source.min_rating}"
    columns = ", ".join(
        [f"coalesce({name}::VARCHAR, '') AS {name}" for name in ("prompt", "response")]
        + ["coalesce(try_cast(rating AS INTEGER), 0) AS rating", "id"]
        + [f"{name if name in database.columns else 'NULL'}::VARCHAR AS {name}" for name in sorted(OPTIONAL_COLUMNS)]
    )
    if source.limit is not None:
        counted = " AND ".join([*conditions, f"NOT coalesce({_rating(low)}, TRUE)"])
        oldest = connection.execute(
            f"SELECT try_cast(id AS BIGINT) AS number FROM {table} WHERE {counted} "  # noqa: S608 - names are ours
            f"ORDER BY number DESC LIMIT 1 OFFSET {source.limit - 1}",
            parameters,
        ).fetchone()
        if oldest:
            if oldest[0] is None:
                raise Refused.because(
                    FailureReason.INVALID_CONFIG,
                    f"limit takes the rows of {TABLE} with the highest ids, and their ids are not all numbers",
                    "remove spec.dataset.ratings.limit, or give the rows numbers as ids",
                )
            conditions = [*conditions, f"try_cast(id AS BIGINT) >= {int(oldest[0])}"]
    rows = f"SELECT {columns} FROM {table} WHERE {' AND '.join(conditions)}"  # noqa: S608 - names are ours
    rules = {"seed": str(config.seed), "whitespace": WHITESPACE}
    if pairs:
        return Statement(_pairs(rows, config, record_format), {**parameters, **rules})
    reason = f"({_reason(config, low, 'response', _stripped('prompt'), _stripped('response'))})"
    line = _LINES[record_format]
    sql = f"""
        SELECT CASE WHEN NOT {low} AND {_plainly_good(config)} THEN {_line("prompt", line)}
                    WHEN {reason} IS NOT NULL THEN {_dropped(reason, "1")}
                    ELSE {_line(_stripped("prompt"), line)} END
        FROM (SELECT *, to_json(prompt)::VARCHAR AS prompt_json, to_json(response)::VARCHAR AS response_json
              FROM ({rows}))"""  # noqa: S608 - names are ours
    return Statement(sql, {**parameters, **rules})


def _conditions(
    database: RatingsDatabase, source: RatingsSource, *, all_ratings: bool
) -> tuple[list[str], dict[str, str | int | float]]:
    conditions = ["TRUE"]
    parameters: dict[str, str | int | float] = {}
    for name in ("philosopher", "domain", "task_type"):
        if (value := getattr(source, name)) is not None:
            conditions.append(f"{name} = ${name}")
            parameters[name] = value
    if source.min_confidence is not None:
        conditions.append("try_cast(confidence AS DOUBLE) >= $min_confidence")
        parameters["min_confidence"] = source.min_confidence
    if source.gold_star_only and not all_ratings:
        conditions += [_is_true(database, name) for name in ("is_gold_star", "use_as_sample_response")]
    return conditions, parameters


def _is_true(database: RatingsDatabase, column: str) -> str:
    """A boolean of PostgreSQL as it is, so that the server filters; whatever else stands for true by its text."""
    if database.columns.get(column) == "boolean" and database.url.backend == "postgresql":
        return column
    return f"({column}::VARCHAR = '1' OR lower({column}::VARCHAR) IN ('true', 't'))"


def _rating(low: str) -> str:
    return low.replace("rating", "coalesce(try_cast(rating AS INTEGER), 0)")


def _plainly_good(config: DatasetConfig) -> str:
    """Of most rows a few bytes tell that they are kept as they are, so that nothing else is evaluated for them."""
    long_enough = {"prompt": config.min_prompt_characters, "response": config.min_response_characters}
    conditions = [
        f"strlen({column}) >= {UTF8_MAX_BYTES * max(1, least)} AND {_is_stripped(column)}"
        for column, least in long_enough.items()
    ]
    conditions.append(f"strlen(prompt) + strlen(response) <= {config.max_characters}")
    return f"CASE WHEN prompt_json = '' OR response_json = '' THEN FALSE ELSE {' AND '.join(conditions)} END"


def _is_stripped(column: str) -> str:
    """Whether text begins and ends with visible ASCII; undefined for what is no UTF-8."""
    return f"unicode({column}) BETWEEN {ord('!')} AND {ord('~')} AND {column}[-1] BETWEEN '!' AND '~'"


def _stripped(column: str) -> str:
    """`str.strip`, whose slow part is only for texts that begin or end with something that might be white space. Text
    that is no UTF-8 has no JSON, and no characters.
    """
    return (
        f"CASE WHEN {column}_json = '' THEN '' WHEN {_is_stripped(column)} THEN {column} "
        f"ELSE trim({column}, $whitespace) END"
    )


def _reason(config: DatasetConfig, low: str, answer: str, stripped_prompt: str, stripped_answer: str) -> str:
    """`core.datasets.quality` in SQL."""
    return f"""
        CASE WHEN {low} THEN '{DropReason.LOW_RATING}'
             WHEN prompt_json = '' OR {answer}_json = '' THEN '{DropReason.INVALID_TEXT}'
             WHEN {_shorter(stripped_prompt, config.min_prompt_characters)} THEN '{DropReason.SHORT_PROMPT}'
             WHEN {_shorter(stripped_answer, config.min_response_characters)} THEN '{DropReason.SHORT_RESPONSE}'
             WHEN strlen(prompt) + strlen({answer}) > {config.max_characters}
                 AND length(prompt) + length({answer}) > {config.max_characters} THEN '{DropReason.OVER_LENGTH}'
        END"""


def _shorter(text: str, characters: int) -> str:
    """Characters are counted only where the number of bytes, at most four for each, leaves it open."""
    least = max(1, characters)
    return f"strlen({text}) < {UTF8_MAX_BYTES * least} AND length({text}) < {least}"


def _dropped(reason: str, count: str) -> str:
    return f"concat('{DROPPED_MARK.decode()}', {reason}, ' ', {count}, ' ', {_SHOWN_ID})"


def _line(stripped_prompt: str, parts: Sequence[str]) -> str:
    """A row that is kept; one `concat` copies its texts once, where each `||` would copy all before it again."""
    key = f"left(md5(concat($seed, ':', {stripped_prompt})), {KEY_BYTES})"
    return f"concat({', '.join([key, *parts])})"


def _message(role: str, text: str) -> tuple[str, ...]:
    return (f"""'{{"role":"{role}","content":'""", text, "'}'")


def _json(column: str) -> str:
    return f"coalesce(to_json({column})::VARCHAR, 'null')"


_METADATA = (
    """'{"confidence":'""",
    _json("try_cast(confidence AS DOUBLE)"),
    """',"domain":'""",
    _json("domain"),
    """',"philosopher":'""",
    _json("philosopher"),
    """',"rating":'""",
    "rating",
    """',"task_type":'""",
    _json("task_type"),
    "'}'",
)
_ALPACA = ("""'{"instruction":'""", "prompt_json", """',"input":"","output":'""", "response_json")
_RAW = ("""'{"prompt":'""", "prompt_json", """',"response":'""", "response_json")
_QUESTION = _message("user", "prompt_json")
_CHAT = ("""'{"messages":['""", *_QUESTION, "','", *_message("assistant", "response_json"), "']}'")
_LINES: Mapping[Format, tuple[str, ...]] = {
    "ChatML": _CHAT,
    "OpenAI": _CHAT,
    "Alpaca": (*_ALPACA, "'}'"),
    "RawJSONL": (*_RAW, "'}'"),
    "Instruction": (*_ALPACA, """',"metadata":'""", *_METADATA, "'}'"),
    "Gauntlet": (
        *_RAW,
        """',"attack_type":'""",
        _json("task_type"),
        """',"success":'""",
        "CASE WHEN rating <= 2 THEN 'true' ELSE 'false' END",
        """',"findings":[{"philosopher":'""",
        _json("philosopher"),
        """',"rating":'""",
        "rating",
        "'}]}'",
    ),
}
_PAIR_LINES: Mapping[Format, tuple[str, ...]] = {
    "DPO": (
        """'{"prompt":['""",
        *_QUESTION,
        """'],"chosen":['""",
        *_message("assistant", "chosen_json"),
        """'],"rejected":['""",
        *_message("assistant", "rejected_json"),
        "']}'",
    ),
    "Preference": (
        """'{"prompt":'""",
        "prompt_json",
        """',"chosen":'""",
        "chosen_json",
        """',"rejected":'""",
        "rejected_json",
        """',"metadata":{"chosen_rating":'""",
        "best.rating",
        """',"rejected_rating":'""",
        "worst.rating",
        "'}}'",
    ),
}


def _pairs(rows: str, config: DatasetConfig, record_format: Format) -> str:
    """The best answer of each prompt against its worst; several ratings of one answer count by their mean."""
    return f"""
        WITH answers AS (
            SELECT prompt, response, avg(rating) AS rating, count(*) AS ratings, min(id) AS id
            FROM ({rows}) GROUP BY prompt, response),
        prompts AS (
            SELECT prompt, sum(ratings)::BIGINT AS ratings, min(id) AS id,
                   max(struct_pack(rating := rating, response := response, ratings := ratings)) AS best,
                   min(struct_pack(rating := rating, response := response, ratings := ratings)) AS worst
            FROM answers GROUP BY prompt),
        judged AS (
            SELECT *, best.rating - worst.rating >= {config.min_rating_difference} AS paired, best.response AS chosen,
                   to_json(prompt)::VARCHAR AS prompt_json, to_json(best.response)::VARCHAR AS chosen_json,
                   to_json(worst.response)::VARCHAR AS rejected_json
            FROM prompts),
        stripped AS (
            SELECT *, {_stripped("prompt")} AS stripped_prompt, {_stripped("chosen")} AS stripped_chosen FROM judged),
        ruled AS (
            SELECT *, {_reason(config, "FALSE", "chosen", "stripped_prompt", "stripped_chosen")} AS reason
            FROM stripped)
        SELECT CASE WHEN reason IS NOT NULL THEN {_dropped("reason", "1")}
                    WHEN rejected_json = '' THEN {_dropped(f"'{DropReason.INVALID_TEXT}'", "1")}
                    ELSE {_line("stripped_prompt", _PAIR_LINES[record_format])} END
        FROM ruled WHERE paired
        UNION ALL
        SELECT {_dropped(f"'{DropReason.NO_PAIR}'", "unused")}
        FROM (SELECT id, CASE WHEN paired THEN ratings - best.ratings - worst.ratings ELSE ratings END AS unused
              FROM judged)
        WHERE unused > 0"""  # noqa: S608 - names are ours


def _words(database: RatingsDatabase, error: duckdb.Error) -> str:
    return without_secrets(" ".join(str(error).split()), database.url)[:MESSAGE_MAX_CHARACTERS]


def _may_pass(error: duckdb.Error) -> bool:
    return any(words in str(error) for words in PASSING_WORDS)


def _lacked_memory(error: duckdb.Error) -> bool:
    return isinstance(error, duckdb.OutOfMemoryException) and not any(full in str(error) for full in FULL_DISK_WORDS)


def _failed(database: RatingsDatabase, error: duckdb.Error) -> Refused:
    words = _words(database, error)
    if any(full in str(error) for full in FULL_DISK_WORDS):
        return storage_exceeded(words)
    if _lacked_memory(error):
        row = database.largest_row()
        return Refused.because(
            FailureReason.DATASET_INVALID,
            f"row {row.id} of {TABLE} has {row.bytes} bytes, too many to be read: {words}",
            "shorten or delete the row",
        )
    message = f"reading {shown(database.url)} failed: {words}"
    if _may_pass(error):
        return unreachable(message)
    return Refused.because(
        FailureReason.DATASET_INVALID,
        message,
        f"see that the user of the URL may read the table {TABLE}, and compare it with the columns in docs/datasets.md",
    )
