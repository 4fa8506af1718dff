"""The same data makes the same files, whatever it comes from, and those that the specification says."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core import datasets
from finetune_operator.core.dataset_records import Format, pair, question_and_answer, write_record
from finetune_operator.core.datasets import RatedAnswer
from finetune_operator.store.datasets import spool as spools
from finetune_operator.store.datasets.dropped_rows import DROPPED_NAME
from tests.postgres_server import PostgresServer
from tests.unit.store.conftest import Fill
from tests.unit.store.dataset_exports import export, from_ratings, lines, put
from tests.unit.store.ratings_database import fill_database, rating, write_ratings

Rows = list[dict[str, Any]]
LENIENT = {"min_prompt_characters": 0, "min_response_characters": 0}
KEY, SECRET = "access-key", "hunter2"


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
    st.integers(1, 50),
    st.integers(1, 400),
    st.integers(1, 400),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_more_rows_than_fit_into_memory_are_arranged_as_a_few_are(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    fraction: float,
    together: int,
    sorted_bytes: int,
    piece: int,
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spools, "SORTED_BYTES", sorted_bytes)
        patch.setattr(spools, "SORTED_MAX_BYTES", piece)
        spool = spools.Spool(directory, 10**9)
        written = [datasets.prompt_key(prompt, 1) + line.encode() + b"\n" for prompt, line in rows]
        for first in range(0, len(written), together):
            spool.add(b"".join(written[first : first + together]))
        (directory / "out").mkdir()
        parts = spool.write(directory / "out" / "train.jsonl", directory / "out" / "test.jsonl", fraction)
        spool.close()
    expected = datasets.arranged(((prompt, line.encode()) for prompt, line in rows), fraction, 1)
    assert lines(directory / "out") == tuple(expected)
    assert (parts.rows, parts.test_rows) == (len(expected.train), len(expected.test))
    assert spool.dropped.counts["Duplicate"] == len(rows) - parts.rows - parts.test_rows
    assert [path.name for path in directory.iterdir() if path.is_file()] == [DROPPED_NAME]


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
