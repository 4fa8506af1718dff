"""An export that lacks something on its way: memory, room on the disk, or its connection to the database."""

import errno
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from finetune_operator.contract.dataset import DatasetConfig, VolumeSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.store.datasets import ratings_scan
from finetune_operator.store.datasets import spool as spools
from tests.postgres_server import PostgresServer
from tests.unit.store.conftest import Fill
from tests.unit.store.dataset_exports import export, from_ratings
from tests.unit.store.ratings_database import fill_database, rating, write_ratings


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


def test_a_dataset_that_becomes_too_large_ends_its_scan(fill: Fill, tmp_path: Path) -> None:
    url = fill(rating(number, response=f"{number} " + "long " * 2000) for number in range(2000))
    with pytest.raises(Refused, match="more than 5000000 bytes"):
        export(tmp_path / "1", from_ratings(max_bytes=5_000_000), url)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("dataset-")]


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
        def add(self, content: bytes) -> None:
            super().add(content)
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
