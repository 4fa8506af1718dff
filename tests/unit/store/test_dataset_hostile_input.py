"""What hostile data is answered with: a filter stays a value, and a file is refused by its row."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import FailureReason, Refused
from tests.postgres_server import PostgresServer
from tests.unit.store.conftest import Fill
from tests.unit.store.dataset_exports import export, from_ratings, lines, put
from tests.unit.store.ratings_database import fill_database, rating

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


def test_a_filter_that_is_a_number_takes_no_text() -> None:
    for name in ("min_rating", "min_confidence", "limit"):
        with pytest.raises(ValidationError, match=name):
            RatingsSource.model_validate({name: "4 OR 1=1; DROP TABLE ml_analysis_rating"})


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
    "one array": (b"\xef\xbb\xbf [\n  " + record() + b"\n]", "is one JSON array"),
    "one array in one line": (b"[" + record() + b" " * 17 * 2**20 + b"]", "is one JSON array"),
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


def test_an_array_is_told_how_it_becomes_lines(tmp_path: Path) -> None:
    source = put(tmp_path / "out", b'[{"instruction": "Why?", "output": "Because."}]')
    with pytest.raises(Refused) as caught:
        export(tmp_path / "out", DatasetConfig(source=source, format="Alpaca"))
    assert "jq -c '.[]' file.json > file.jsonl" in caught.value.failure.remedy


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
