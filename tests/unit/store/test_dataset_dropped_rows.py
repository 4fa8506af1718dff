"""Rows that are left out: counted and named, and nothing of them is in the dataset."""

import json
import sqlite3
from pathlib import Path

import pytest

from finetune_operator.core.dataset_records import Format
from finetune_operator.store.datasets import spool as spools
from tests.unit.store.conftest import Fill
from tests.unit.store.dataset_exports import export, from_ratings, lines
from tests.unit.store.ratings_database import rating, write_ratings


def test_rows_that_are_left_out_take_nothing_of_what_the_dataset_may_have(tmp_path: Path) -> None:
    spool = spools.Spool(tmp_path, max_bytes=100)
    spool.add([spools.DROPPED_MARK + f"ShortPrompt 1 {number}".encode() for number in range(1000)])
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
