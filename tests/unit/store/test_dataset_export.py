"""The same data makes the same files, whatever it comes from; and what hostile data is answered with."""

import errno
import gzip
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, ObjectSource, RatingsSource, VolumeSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core import datasets
from finetune_operator.core.dataset_records import Format, pair, question_and_answer, write_record
from finetune_operator.core.datasets import RatedAnswer
from finetune_operator.store.datasets import ratings_scan
from finetune_operator.store.datasets import spool as spools
from finetune_operator.store.datasets.export import Export
from tests.postgres_server import PostgresServer
from tests.unit.store.ratings_database import fill_database, rating, write_ratings

Rows = list[dict[str, Any]]
Fill = Callable[[Iterable[dict[str, Any]]], str]
LENIENT = {"min_prompt_characters": 0, "min_response_characters": 0}
KEY, SECRET = "access-key", "hunter2"


@pytest.fixture(params=["sqlite", "postgresql"])
def fill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fill:
    """Puts rows into a new database of each kind."""
    if request.param == "sqlite":
        return lambda rows: write_ratings(tmp_path_factory.mktemp("db") / "ratings.db", rows)
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda rows: fill_database(server.database(), rows)


def export(
    directory: Path, config: DatasetConfig, url: str = "", output_format: Format = "ChatML", **environment: str
) -> DatasetReport:
    directory.mkdir(exist_ok=True)
    volume = directory.parent / "volume"
    return Export(config, output_format, volume, {DATABASE_URL_VARIABLE: url, **environment}, directory).write()


def lines(directory: Path) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    def part(name: str) -> tuple[bytes, ...]:
        content = (directory / name).read_bytes()
        assert content.endswith(b"\n") or not content
        return tuple(content.split(b"\n")[:-1])

    return part("train.jsonl"), part("test.jsonl")


def from_ratings(**changes: Any) -> DatasetConfig:
    source = RatingsSource(**changes.pop("source", {}))
    return DatasetConfig(source=source, database_timeout_seconds=5.0, **changes)


def put(directory: Path, content: bytes, name: str = "rows") -> VolumeSource:
    volume = directory.parent / "volume"
    volume.mkdir(exist_ok=True)
    (volume / name).write_bytes(content)
    return VolumeSource(path=name)


def parquet(rows: Rows, file: Path) -> bytes:
    with duckdb.connect() as connection:
        (file.with_suffix(".json")).write_text("\n".join(map(json.dumps, rows)))
        source, target = str(file.with_suffix(".json")), str(file)
        connection.execute(f"COPY (FROM read_json('{source}', format = 'newline_delimited')) TO '{target}'")
    return file.read_bytes()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of an S3-compatible server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_the_same_data_has_the_same_files_and_digest_from_every_source(
    tmp_path: Path, postgres: PostgresServer, store: str
) -> None:
    rows = [rating(number) for number in range(300)]
    raw = [{"prompt": row["prompt"], "response": row["response"]} for row in rows]
    json_lines = "\n".join(map(json.dumps, raw)).encode()
    client = boto3.client(
        "s3", endpoint_url=store, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="x"
    )
    client.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "x"})
    client.put_object(Bucket="data", Key="a/rows.jsonl", Body=json_lines)
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    (tmp_path / "made").mkdir()
    made = tmp_path / "made"
    columnar = parquet(raw[::-1], made / "rows.parquet")
    reports = {
        "sqlite": export(tmp_path / "1", from_ratings(), write_ratings(made / "r.db", rows)),
        "postgresql": export(tmp_path / "2", from_ratings(), fill_database(postgres.database(), rows[::-1])),
        "jsonl": export(
            tmp_path / "3", DatasetConfig(source=put(tmp_path / "3", json_lines, "r.jsonl"), format="RawJSONL")
        ),
        "parquet": export(
            tmp_path / "4", DatasetConfig(source=put(tmp_path / "4", columnar, "r.bin"), format="RawJSONL")
        ),
        "s3": export(
            tmp_path / "5",
            DatasetConfig(source=ObjectSource(url="s3://data/a/rows.jsonl", endpoint=store), format="RawJSONL"),
            **credentials,
        ),
    }
    assert {name: report.digest for name, report in reports.items()} == dict.fromkeys(reports, reports["sqlite"].digest)
    assert len({lines(tmp_path / str(number)) for number in range(1, 6)}) == 1
    told = f"{reports['s3'].rows} {reports['s3'].test_rows}"
    by_hand = subprocess.run(
        ["sh", "-c", f"(cat train.jsonl test.jsonl; echo {told}) | sha256sum"],
        cwd=tmp_path / "5",
        capture_output=True,
        text=True,
        check=True,
    )
    assert reports["s3"].digest == f"sha256:{by_hand.stdout.split()[0]}"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
JUDGED = st.lists(st.tuples(TEXT, TEXT, st.integers(1, 5)), min_size=1, max_size=25)
DATABASES = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@DATABASES
@given(JUDGED, st.floats(0, 1), st.integers(0, 1000), st.integers(0, 6))
def test_databases_make_what_the_specification_says(
    fill: Fill,
    tmp_path_factory: pytest.TempPathFactory,
    judged: list[tuple[str, str, int]],
    fraction: float,
    seed: int,
    shortest: int,
) -> None:
    config = from_ratings(test_fraction=fraction, seed=seed, min_prompt_characters=shortest, min_response_characters=1)
    examples = [(prompt, response) for prompt, response, stars in judged if stars >= 4]
    kept = [
        (prompt, write_record(example, "ChatML"))
        for prompt, response in examples
        if datasets.quality(example := question_and_answer(prompt, response), config) is None
    ]
    url = fill(rating(0, prompt=p, response=r, rating=stars) for p, r, stars in judged)
    directory = tmp_path_factory.mktemp("out")
    if not kept:
        with pytest.raises(Refused):
            export(directory, config, url)
        return
    report = export(directory, config, url)
    assert lines(directory) == tuple(datasets.arranged(kept, fraction, seed))
    assert sum(report.dropped.values()) + report.rows + report.test_rows == len(judged)
    assert report.dropped.get("LowRating", 0) == sum(stars < 4 for _, _, stars in judged)


@DATABASES
@given(st.lists(st.tuples(st.sampled_from("abc"), TEXT, st.integers(1, 5)), min_size=1, max_size=25))
def test_databases_make_the_pairs_that_the_specification_says(
    fill: Fill, tmp_path_factory: pytest.TempPathFactory, judged: list[tuple[str, str, int]]
) -> None:
    config = from_ratings(test_fraction=0.0, **LENIENT)
    answers: dict[str, dict[str, list[int]]] = {}
    for prompt, response, stars in judged:
        answers.setdefault(prompt, {}).setdefault(response, []).append(stars)
    kept = []
    for prompt, given_answers in answers.items():
        best = datasets.best_pair([RatedAnswer(r, sum(s) / len(s)) for r, s in given_answers.items()], 1)
        if best and datasets.quality(pair(prompt, *best), config) is None:
            kept.append((prompt, write_record(pair(prompt, *best), "DPO")))
    url = fill(rating(0, prompt=p, response=r, rating=stars) for p, r, stars in judged)
    directory = tmp_path_factory.mktemp("out")
    if not kept:
        with pytest.raises(Refused):
            export(directory, config, url, "DPO")
        return
    export(directory, config, url, "DPO")
    assert lines(directory)[0] == datasets.arranged(kept, 0.0, config.seed).train


@given(
    st.lists(st.tuples(st.text("ab", max_size=3), st.text("xy", max_size=40)), max_size=200),
    st.floats(0, 1),
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 400),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_more_rows_than_fit_into_memory_are_arranged_as_a_few_are(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    fraction: float,
    buffered: int,
    sorted_bytes: int,
    piece: int,
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "BUFFERED_MAX_BYTES", buffered)
        patch.setattr(spools, "SORTED_BYTES", sorted_bytes)
        patch.setattr(spools, "SORTED_MAX_BYTES", piece)
        spool = spools.Spool(directory, 10**9)
        for prompt, line in rows:
            spool.add([datasets.prompt_key(prompt, 1) + line.encode()])
        (directory / "out").mkdir()
        parts = spool.write(directory / "out" / "train.jsonl", directory / "out" / "test.jsonl", fraction)
        spool.close()
    expected = datasets.arranged(((prompt, line.encode()) for prompt, line in rows), fraction, 1)
    assert lines(directory / "out") == tuple(expected)
    assert (parts.rows, parts.test_rows) == (len(expected.train), len(expected.test))
    assert spool.dropped.counts["Duplicate"] == len(rows) - parts.rows - parts.test_rows
    assert not [path for path in directory.iterdir() if path.is_file()]


def test_each_format_is_written_from_ratings_as_it_is_read(fill: Fill, tmp_path: Path) -> None:
    url = fill([rating(1, task_type='say "no"'), rating(1, response="An answer that is worse, but long.", rating=1)])
    for number, (output_format, expected) in enumerate(WRITTEN.items()):
        directory = tmp_path / str(number)
        export(directory, from_ratings(test_fraction=0.0), url, output_format)
        assert [json.loads(line) for line in lines(directory)[0]][-1] == expected, output_format


PROMPT, ANSWER = rating(1)["prompt"], rating(1)["response"]
WORSE = "An answer that is worse, but long."
WRITTEN: dict[Format, dict[str, Any]] = {
    "Alpaca": {"instruction": PROMPT, "input": "", "output": ANSWER},
    "RawJSONL": {"prompt": PROMPT, "response": ANSWER},
    "Instruction": {
        "instruction": PROMPT,
        "input": "",
        "output": ANSWER,
        "metadata": {
            "confidence": 0.9,
            "domain": "ethics",
            "philosopher": "plato",
            "rating": 5,
            "task_type": 'say "no"',
        },
    },
    "Preference": {
        "prompt": PROMPT,
        "chosen": ANSWER,
        "rejected": WORSE,
        "metadata": {"chosen_rating": 5.0, "rejected_rating": 1.0},
    },
    "Gauntlet": {
        "prompt": PROMPT,
        "response": WORSE,
        "attack_type": "summarization",
        "success": True,
        "findings": [{"philosopher": "plato", "rating": 1}],
    },
}


def test_the_newest_rows_and_the_surest(fill: Fill, tmp_path: Path) -> None:
    url = fill(rating(number, confidence=number / 10, rating=5 - number % 2) for number in range(10))
    newest = export(tmp_path / "1", from_ratings(source={"limit": 3, "min_rating": 5}, test_fraction=0.0), url)
    assert newest.rows == 3
    assert {json.loads(line)["messages"][0]["content"] for line in lines(tmp_path / "1")[0]} == {
        rating(number)["prompt"] for number in (4, 6, 8)
    }
    surest = export(tmp_path / "2", from_ratings(source={"min_confidence": 0.75}, test_fraction=0.0), url)
    assert surest.rows == 2


def test_the_newest_of_rows_without_numbers_is_not_guessed(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("CREATE TABLE ml_analysis_rating (id TEXT, prompt TEXT, response TEXT, rating INTEGER)")
        row = ("a-uuid", rating(1)["prompt"], rating(1)["response"], 5)
        connection.execute("INSERT INTO ml_analysis_rating VALUES (?, ?, ?, ?)", row)
    connection.close()
    config = from_ratings(source={"gold_star_only": False, "limit": 1})
    with pytest.raises(Refused, match="their ids are not all numbers") as caught:
        export(tmp_path / "1", config, f"sqlite:///{tmp_path / 'r.db'}")
    assert caught.value.failure.reason == FailureReason.INVALID_CONFIG
    assert "remove spec.dataset.ratings.limit" in caught.value.failure.remedy


def test_rows_that_are_left_out_take_nothing_of_what_the_dataset_may_have(tmp_path: Path) -> None:
    spool = spools.Spool(tmp_path, max_bytes=100)
    spool.add([spools.DROPPED_MARK + f"ShortPrompt 1 {number}".encode() for number in range(1000)])
    assert (spool.rows, spool.dropped.counts) == (0, {"ShortPrompt": 1000})
    spool.close()


HOSTILE_TEXT = {
    "a quote": "plato' OR '1'='1",
    "a second statement": "plato'; DROP TABLE ml_analysis_rating; --",
    "a backslash": "plato\\' OR 1=1 --",
    "a dollar quote": "$$ OR 1=1 --",
    "a parameter": "$domain",
    "a placeholder": "%s",
    "a function": "pg_read_file('/etc/passwd')",
    "a file of DuckDB": "read_text('/etc/passwd')",
}


@pytest.mark.parametrize("column", ["philosopher", "domain", "task_type"])
@pytest.mark.parametrize("text", HOSTILE_TEXT.values(), ids=HOSTILE_TEXT)
def test_a_filter_is_a_value_and_never_sql(fill: Fill, tmp_path: Path, column: str, text: str) -> None:
    url = fill([rating(1), rating(2, **{column: text}), rating(3)])
    export(tmp_path / "1", from_ratings(source={column: text}, test_fraction=0.0), url)
    assert [json.loads(line)["messages"][0]["content"] for line in lines(tmp_path / "1")[0]] == [rating(2)["prompt"]]
    assert export(tmp_path / "2", from_ratings(), url).rows == 2


def test_a_filter_with_a_nul_is_refused_where_no_text_can_hold_one(tmp_path: Path, postgres: PostgresServer) -> None:
    url = fill_database(postgres.database(), [rating(1, philosopher="plato")])
    with pytest.raises(Refused, match="philosopher holds a NUL"):
        export(tmp_path / "1", from_ratings(source={"philosopher": "plato\0x"}), url)


def record(prompt: str = "What is justice?", response: str = "Everyone doing their own work.") -> bytes:
    return json.dumps({"prompt": prompt, "response": response}).encode()


def zipped() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rows.jsonl", b"0" * 10_000_000)
    return archive.getvalue()


REFUSED_FILES: dict[str, tuple[bytes, str]] = {
    "half of a surrogate pair": (record() + b'\n{"prompt": "\\ud800", "response": "b"}', "row 2 of rows"),
    "bytes that are no text": (record() + b'\n{"prompt": "\xff", "response": "b"}', "row 2 of rows"),
    "NUL between values": (record() + b"\n\x00" + record(), "row 2 of rows"),
    "NaN": (record() + b'\n{"prompt": NaN, "response": "b"}', "row 2 of rows"),
    "deep nesting": (record() + b'\n{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "row 2 of rows"),
    "deep nesting in what is not read": (
        record() + b'\n{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b', "prompt": "a", "response": "b"}',
        "row 2 of rows",
    ),
    "a key twice": (
        record() + b'\n{"prompt": "a", "response": "b", "response": "c"}',
        "row 2 of rows .* same key twice",
    ),
    "a line of 17 MiB": (record() + b"\n" + b" " * 17 * 2**20, "row 2 of rows is .* longer than"),
    "gzip": (gzip.compress(b"0" * 10_000_000), "compressed with gzip"),
    "zip": (zipped(), "compressed with zip"),
    "Parquet cut off": (b"PAR1" + b"\x00" * 100, "can't be read as Parquet"),
    "Parquet with an immense footer": (b"PAR1" + b"\x00" * 20 + b"\xff\xff\xff\x7fPAR1", "can't be read as Parquet"),
    "a mark of another order": ("\ufeff".encode("utf-16") + record().decode().encode("utf-16"), "row 1 of rows"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES)
def test_a_hostile_file_is_refused_by_the_row(tmp_path: Path, content: bytes, message: str) -> None:
    source = put(tmp_path / "out", content)
    with pytest.raises(Refused, match=message) as caught:
        export(tmp_path / "out", DatasetConfig(source=source, format="RawJSONL"))
    assert caught.value.failure.reason == FailureReason.DATASET_INVALID
    assert not list((tmp_path / "out").iterdir())


def test_odd_but_sound_rows_are_kept(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(
        [
            record("A NUL is \0 text, too."),
            record("\u2028 and \u0085 end no line\u2028"),
            b"",
        ]
    )
    report = export(
        tmp_path / "out", DatasetConfig(source=put(tmp_path / "out", content), format="RawJSONL", test_fraction=0.0)
    )
    found = {json.loads(line)["messages"][0]["content"] for line in lines(tmp_path / "out")[0]}
    assert found == {"A NUL is \0 text, too.", "\u2028 and \u0085 end no line\u2028"}
    assert report.rows == 2


LONGEST_LINE = """
import sys
from pathlib import Path
from finetune_operator.contract.dataset import DatasetConfig, VolumeSource
from finetune_operator.contract.failures import Refused
from finetune_operator.store.datasets.export import Export
config = DatasetConfig(source=VolumeSource(path="rows"), format="RawJSONL")
try:
    Export(config, "ChatML", Path(sys.argv[1]), {}, Path(sys.argv[2])).write()
except Refused as refused:
    # Not getrusage: its peak includes that of the process which forked this one.
    status = Path("/proc/self/status").read_text().splitlines()
    print(refused, next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_a_line_of_a_gigabyte_costs_no_gigabyte(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with (tmp_path / "volume" / "rows").open("wb") as file:
        file.write(record() + b"\n")
        file.truncate(2**30)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", LONGEST_LINE, str(tmp_path / "volume"), str(tmp_path / "out")]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "operator"}
    ).stdout
    assert "row 2 of rows" in said
    assert int(said.split()[-1]) < 220 * 1024


def test_rows_that_are_left_out_are_named(fill: Fill, tmp_path: Path) -> None:
    url = fill(
        [
            rating(1),
            rating(2),
            rating(2),
            rating(3, prompt="Why?"),
            rating(4, response="So."),
            rating(5, rating=2),
            rating(6, response="long " * 30_000),
        ]
    )
    report = export(tmp_path / "1", from_ratings(max_characters=100_000), url)
    assert report.dropped == {"Duplicate": 1, "LowRating": 1, "OverLength": 1, "ShortPrompt": 1, "ShortResponse": 1}
    assert report.dropped_rows == {
        "LowRating": ("6",),
        "OverLength": ("7",),
        "ShortPrompt": ("4",),
        "ShortResponse": ("5",),
    }


def test_text_of_sqlite_that_is_no_text_is_left_out_and_counted(tmp_path: Path) -> None:
    url = write_ratings(tmp_path / "r.db", [rating(1)])
    connection = sqlite3.connect(tmp_path / "r.db")
    for number, value in ((10, b"\xff\x00"), (11, b"\xc3\x28")):
        connection.execute(
            "INSERT INTO ml_analysis_rating SELECT ?, cast(? as text), response, 5, 1, 1, NULL, NULL, NULL, NULL, "
            "created_at FROM ml_analysis_rating WHERE id = 1",
            (number, value),
        )
    connection.commit()
    connection.close()
    report = export(tmp_path / "1", from_ratings(), url)
    assert (report.rows, report.dropped, report.dropped_rows) == (1, {"InvalidText": 2}, {"InvalidText": ("10", "11")})


@pytest.mark.parametrize("output_format", ["ChatML", "DPO"])
def test_whatever_ids_another_applications_table_has_no_line_comes_of_them(
    tmp_path: Path, output_format: Format
) -> None:
    made_line = '0123456789abcdef{"messages":["made by an id"]}'
    connection = sqlite3.connect(tmp_path / "r.db")
    connection.execute("CREATE TABLE ml_analysis_rating (id TEXT, prompt TEXT, response TEXT, rating INTEGER)")
    sound = [
        (f"k{number}", f"What is question {number}?", "x" * 30 + score, score) for number in (1, 2) for score in "15"
    ]
    dropped = [(None, "Why?", "x" * 30, 5), (f"a\n{made_line}", "Why not?", "x" * 30, 5)]
    connection.executemany("INSERT INTO ml_analysis_rating VALUES (?, ?, ?, ?)", sound + dropped)
    connection.commit()
    connection.close()

    config = from_ratings(source={"gold_star_only": False, "min_rating": 1}, test_fraction=0)
    report = export(tmp_path / "1", config, f"sqlite:///{tmp_path / 'r.db'}", output_format)

    train, _ = lines(tmp_path / "1")
    assert all(json.loads(line) and b"made by" not in line for line in train)
    assert (report.rows, sum(report.dropped.values())) == (len(train), 2)
    (shown,) = report.dropped_rows.values()
    assert sorted(shown) == ["(no id)", f"a {made_line}"[: spools.SHOWN_ROW_MAX_CHARACTERS]]


def test_a_filter_that_is_a_number_takes_no_text() -> None:
    for name in ("min_rating", "min_confidence", "limit"):
        with pytest.raises(ValidationError, match=name):
            RatingsSource.model_validate({name: "4 OR 1=1; DROP TABLE ml_analysis_rating"})


def test_a_rating_too_large_for_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings_scan, "ROOMS", ratings_scan.ROOMS[:2])
    url = write_ratings(tmp_path / "r.db", [rating(1), rating(2)])
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("UPDATE ml_analysis_rating SET response = hex(zeroblob(60000000)) WHERE id = 2")
    connection.close()
    with pytest.raises(Refused, match=r"row 2 of ml_analysis_rating has 1200000\d\d bytes"):
        export(tmp_path / "1", from_ratings(), url)


def test_long_answers_get_the_memory_that_they_need(fill: Fill, tmp_path: Path) -> None:
    url = fill(rating(number, response=f"{number} " + "long " * 3000) for number in range(2500))
    assert export(tmp_path / "1", from_ratings(test_fraction=0.0), url).rows == 2500


def test_a_small_file_of_equal_rows_does_not_fill_the_volume(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with duckdb.connect() as connection:
        equal = "SELECT repeat('x', 5000) AS prompt, repeat('y', 5000) AS response FROM range(20000)"
        connection.execute(f"COPY ({equal}) TO '{tmp_path}/volume/rows' (FORMAT parquet, COMPRESSION zstd)")
    assert (tmp_path / "volume" / "rows").stat().st_size < 2_000_000
    config = DatasetConfig(source=VolumeSource(path="rows"), format="RawJSONL", max_bytes=5_000_000)
    with pytest.raises(Refused, match="more than 5000000 bytes") as caught:
        export(tmp_path / "1", config)
    assert caught.value.failure.reason == FailureReason.STORAGE_EXCEEDED
    assert "raise dataset.maxBytes" in caught.value.failure.remedy


def test_a_connection_lost_in_the_midst_is_made_again(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the scan has gone on: the database's patience begins with the loss."""
    url = fill_database(postgres.database(), [rating(1)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ml_analysis_rating (prompt, response, rating, is_gold_star, use_as_sample_response, "
            "created_at) SELECT 'question ' || n, repeat('x', 2000), 5, TRUE, TRUE, now() "
            "FROM generate_series(1, 10000) AS n"
        )
    undisturbed = export(tmp_path / "1", from_ratings(), url)
    losses = []

    class Losing(spools.Spool):
        def add(self, rows: Sequence[bytes]) -> None:
            super().add(rows)
            if len(losses) < 2:
                losses.append(self.rows)
                # The patience of the export has passed by now, had it begun with the first scan.
                time.sleep(1.1)
                with psycopg.connect(postgres.url("postgres"), autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                        (url.rpartition("/")[2],),
                    )

    monkeypatch.setattr(ratings_scan, "Spool", Losing)
    monkeypatch.setattr(ratings_scan, "RETRY_SECONDS", 0.01)
    config = from_ratings().model_copy(update={"database_timeout_seconds": 1.0})
    assert export(tmp_path / "2", config, url) == undisturbed
    assert len(losses) == 2


DISK_ERRORS: dict[str, tuple[Any, str, Exception]] = {
    "the spool": (spools.os, "writev", OSError(errno.ENOSPC, "No space left on device")),
    "a quota": (spools.os, "writev", OSError(errno.EDQUOT, "Disk quota exceeded")),
    "DuckDB's own files": (ratings_scan, "_scan", duckdb.IOException("Could not write file: No space left on device")),
    "DuckDB's own limit": (ratings_scan, "_scan", duckdb.OutOfMemoryException("set by 'max_temp_directory_size'")),
}


@pytest.mark.parametrize(("module", "name", "error"), DISK_ERRORS.values(), ids=DISK_ERRORS)
def test_a_full_disk_is_no_lost_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception
) -> None:
    def full(*_: object) -> None:
        raise error

    url = write_ratings(tmp_path / "r.db", [rating(1)])
    monkeypatch.setattr(module, name, full)
    with pytest.raises(Refused, match="no space left where the dataset is made") as caught:
        export(tmp_path / "1", from_ratings(), url)
    assert caught.value.failure.reason == FailureReason.STORAGE_EXCEEDED
    assert "enlarge the volume" in caught.value.failure.remedy


STORES = {
    "an absent object": ("s3://data/none", {}, "does not exist"),
    "an absent bucket": ("s3://nothing-here/rows", {}, "does not exist"),
    "an address of something else": ("https://data/rows", {}, "is no address of an object"),
    "no key": ("s3://data/", {}, "is no address of an object"),
}


@pytest.mark.parametrize(("url", "environment", "message"), STORES.values(), ids=STORES)
def test_an_object_that_is_not_there(
    tmp_path: Path, store: str, url: str, environment: dict[str, str], message: str
) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, **environment}
    with pytest.raises(Refused, match=message) as caught:
        export(tmp_path / "1", DatasetConfig(source=ObjectSource(url=url, endpoint=store)), **credentials)
    assert SECRET not in str(caught.value)
