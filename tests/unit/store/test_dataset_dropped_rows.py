"""Rows that are left out: counted and named, and nothing of them is in the dataset."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.core.dataset_records import Format
from finetune_operator.store.datasets import dropped_rows, spool
from finetune_operator.store.datasets.spool import DROPPED_MARK, Spool
from tests.unit.store.conftest import Fill
from tests.unit.store.dataset_exports import export, from_ratings, lines, put
from tests.unit.store.ratings_database import rating, write_ratings


def test_rows_that_are_left_out_take_nothing_of_what_the_dataset_may_have(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=100)
    spool.add(b"".join(DROPPED_MARK + f"ShortPrompt 1 {number}\n".encode() for number in range(1000)))
    assert (spool.rows, spool.dropped.counts) == (0, {"ShortPrompt": 1000})
    spool.close()


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
        "Duplicate": ("train.jsonl:1",),
        "LowRating": ("6",),
        "OverLength": ("7",),
        "ShortPrompt": ("4",),
        "ShortResponse": ("5",),
    }


def named(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / dropped_rows.DROPPED_NAME).read_text().splitlines()]


def test_each_row_that_is_left_out_is_in_a_file_with_its_reason(fill: Fill, tmp_path: Path) -> None:
    short = [rating(number, prompt="Why?") for number in range(3, 23)]
    export(tmp_path / "1", from_ratings(), fill([rating(1), rating(2), rating(2), *short]))
    *rows, duplicate = named(tmp_path / "1")
    assert sorted(rows, key=lambda each: int(str(each["row"]))) == [
        {"reason": "ShortPrompt", "row": str(number), "rows": 1} for number in range(4, 24)
    ]
    file, _, line = str(duplicate.pop("row")).partition(":")
    assert duplicate == {"reason": "Duplicate", "rows": 1}
    assert b"question 2" in (tmp_path / "1" / file).read_bytes().splitlines()[int(line) - 1]


@pytest.mark.parametrize("sorted_max_bytes", [spool.SORTED_MAX_BYTES, 1000], ids=["sorted at once", "merged"])
def test_duplicates_are_named_by_the_row_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorted_max_bytes: int
) -> None:
    monkeypatch.setattr(spool, "SORTED_MAX_BYTES", sorted_max_bytes)
    monkeypatch.setattr(spool, "BUCKETS", (b"00",))
    texts = [f"What is question {number}?" for number in range(40) for _ in range(1 + number % 3)]
    content = "".join(json.dumps({"prompt": text, "response": "x" * 30}) + "\n" for text in texts).encode()
    report = export(tmp_path / "1", DatasetConfig(source=put(tmp_path / "1", content), format="RawJSONL"))

    found = {}
    for each in named(tmp_path / "1"):
        file, _, line = str(each["row"]).partition(":")
        kept = (tmp_path / "1" / file).read_bytes().splitlines()[int(line) - 1]
        found[re.search(rb"question (\d+)", kept)[1]] = each["rows"]
    assert found == {b"%d" % number: number % 3 for number in range(40) if number % 3}
    assert (report.rows + report.test_rows, report.dropped) == (40, {"Duplicate": sum(found.values())})
    assert any(str(each["row"]).startswith("test.jsonl:") for each in named(tmp_path / "1"))


def test_rows_of_a_file_are_named_by_their_number(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is question {number}?", "response": "x" * 30} for number in range(3)]
    rows[1]["response"] = "So."
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    config = DatasetConfig(source=put(tmp_path / "1", content), format="RawJSONL")
    export(tmp_path / "1", config)
    assert named(tmp_path / "1") == [{"reason": "ShortResponse", "row": "2", "rows": 1}]


def test_ratings_that_make_no_pair_are_named_by_their_prompts_first(fill: Fill, tmp_path: Path) -> None:
    pair = [rating(1, rating=5), rating(1, rating=1, response="y" * 40)]
    alone = [rating(2, rating=5), rating(2, rating=5, response="z" * 40)]
    export(tmp_path / "1", from_ratings(test_fraction=0), fill([*pair, *alone]), "DPO")
    assert named(tmp_path / "1") == [{"reason": "NoPair", "row": "3", "rows": 2}]


def test_where_nearly_all_of_a_large_table_is_left_out_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dropped_rows, "NAMED_MAX_ROWS", 2)
    dropped = dropped_rows.Dropped(tmp_path / dropped_rows.DROPPED_NAME)
    for number in range(5):
        dropped.add("LowRating", str(number))
    dropped.finish()
    assert named(tmp_path) == [
        {"reason": "LowRating", "row": "0", "rows": 1},
        {"reason": "LowRating", "row": "1", "rows": 1},
        {"reason": "LowRating", "rows": 3},
    ]


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
    assert sorted(shown) == ["(no id)", f"a {made_line}"[: dropped_rows.SHOWN_ROW_MAX_CHARACTERS]]
