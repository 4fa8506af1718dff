"""Exports of ratings: what is made in which format, once for the same rows, and how it is told and counted."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.core.written_records import WRITTEN
from finetune_operator.store import exported_datasets
from finetune_operator.web.app import create_app
from finetune_operator.web.dataset_schemas import FORMATS, DpoExportRequest, ExportRequest
from tests.postgres_server import PostgresServer, running
from tests.unit.store.ratings_database import fill_database
from tests.unit.web.datasets.conftest import all_kinds_of_rows, lines
from tests.unit.web.ratings_api import DATASETS, EXPORT, RatingsApi
from tests.unit.web.test_access import is_problem


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running() as server:
        yield server


async def test_an_export_tells_what_it_made_and_where(exports: RatingsApi) -> None:
    response = await exports.export(philosopher="plato", domain="law", min_rating=4)
    made = response.json()
    assert response.status_code == 201, made
    assert (made["sample_count"], made["format"], made["created"]) == (4, "chatml", True)
    assert (exports.directory / made["dataset_path"]).read_bytes().count(b"\n") == 4
    assert response.headers["location"] == f"{DATASETS}/{made['id']}"
    assert (made["created_by"], made["request"]["domain"], made["rows"], made["test_rows"]) == (
        "api-token",
        "law",
        4,
        0,
    )
    entry = (await exports.client.get(response.headers["location"])).json()
    assert entry == {name: value for name, value in made.items() if name in entry}


async def test_the_same_rows_in_the_same_format_are_the_same_dataset(exports: RatingsApi) -> None:
    first = await exports.made(format="alpaca")
    again = await exports.export(format="alpaca", philosopher="plato")
    assert again.status_code == 200
    assert again.json() == first | {"created": False}
    other = await exports.made(format="openai")
    assert await exports.listed() == [other["id"], first["id"]]


async def test_the_same_rows_of_a_database_server_are_the_same_dataset(
    exports: RatingsApi, tmp_path: Path, postgres: PostgresServer
) -> None:
    made = await exports.made(philosopher="plato")
    (tmp_path / "url").write_text(fill_database(postgres.database(), all_kinds_of_rows()[::-1]))
    again = await exports.export(philosopher="plato")
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    response = await exports.export(philosopher="' OR 1=1 --")
    assert is_problem(response, 422, "dataset-empty")


async def test_the_digest_can_be_checked_with_sha256sum(exports: RatingsApi) -> None:
    made = await exports.made(test_fraction=0.3)
    parts = b"".join([b"\n".join(await lines(exports, made, file["name"])) + b"\n" for file in made["files"]])
    assert (made["rows"], made["test_rows"]) == (7, 3)
    assert made["digest"] == f"sha256:{hashlib.sha256(parts + b'7 3' + chr(10).encode()).hexdigest()}"


@pytest.mark.parametrize("name", FORMATS)
async def test_every_row_is_what_the_schema_of_its_format_says(exports: RatingsApi, name: str) -> None:
    made = await exports.made(format=name)
    (model,) = (WRITTEN[record_format] for known, record_format in FORMATS.items() if known == name)
    rows = await lines(exports, made)
    assert len(rows) == made["sample_count"] >= 10
    for row in rows:
        model.model_validate_json(row)
    shown = (await exports.client.get("/api/training/formats")).json()["formats"][name]
    assert shown["record_schema"] == model.model_json_schema()
    assert set(json.loads(rows[0])) == set(shown["record_schema"]["required"])


async def test_all_formats_have_a_schema(exports: RatingsApi) -> None:
    shown = (await exports.client.get("/api/training/formats")).json()["formats"]
    assert shown.keys() == FORMATS.keys()
    assert {FORMATS[name] for name in FORMATS} == WRITTEN.keys()
    assert not shown["gauntlet"]["readable"]
    assert shown["dpo"]["pairs"]


@pytest.mark.parametrize(
    ("exporter", "body", "keys", "rows"),
    [
        ("sft", {}, {"instruction", "input", "output", "metadata"}, 10),
        ("sft", {"min_confidence": 0.75}, {"instruction", "input", "output", "metadata"}, 2),
        ("sft", {"limit": 3}, {"instruction", "input", "output", "metadata"}, 3),
        ("dpo", {"min_confidence_diff": 1.0}, {"prompt", "chosen", "rejected", "metadata"}, 10),
        ("gauntlet", {}, {"prompt", "response", "attack_type", "success", "findings"}, 20),
        ("gauntlet", {"limit": 5}, {"prompt", "response", "attack_type", "success", "findings"}, 5),
    ],
)
async def test_exporters_by_purpose(
    exports: RatingsApi, exporter: str, body: dict[str, Any], keys: set[str], rows: int
) -> None:
    made = await exports.made(f"/api/training/export/{exporter}", **body)
    found = await lines(exports, made)
    assert (len(found), json.loads(found[0]).keys()) == (rows, keys)


async def test_an_exporter_needs_no_body(exports: RatingsApi) -> None:
    response = await exports.client.post("/api/training/export/sft")
    assert (response.status_code, response.json()["sample_count"]) == (201, 10)


@pytest.mark.parametrize(
    ("request_", "points"),
    [
        (DpoExportRequest(), 1),
        (DpoExportRequest(min_confidence_diff=0.5), 2),
        (ExportRequest(), 1),
        (ExportRequest(min_rating_difference=3), 3),
        (ExportRequest(min_confidence_diff=0.5), 2),
    ],
)
def test_a_difference_is_points_or_a_share_of_the_scale(
    request_: DpoExportRequest | ExportRequest, points: int
) -> None:
    assert request_.config().min_rating_difference == points


async def test_pairs_as_far_apart_as_a_share_of_the_scale(exports: RatingsApi) -> None:
    made = await exports.made(format="dpo", min_confidence_diff=1.0)
    assert (made["sample_count"], made["request"]["min_rating_difference"]) == (10, 4)


async def test_stats_tell_exporters_directory_and_files(exports: RatingsApi) -> None:
    made = await exports.made()
    stats = (await exports.client.get("/api/training/stats")).json()
    assert stats["exporters"].keys() == {"sft", "dpo", "gauntlet"}
    assert (stats["exporters_ready"], stats["missing"]) == (True, [])
    assert (stats["directory"], stats["datasets"], stats["bytes"]) == (str(exports.directory), 1, made["bytes"])
    on_disk = {path.name: path.stat().st_size for path in (exports.directory / made["id"]).glob("*.jsonl")}
    assert {file["name"]: file["bytes"] for file in stats["files"]} == on_disk
    assert {file["created_at"] for file in stats["files"]} == {made["created_at"]}


async def test_statistics_count_what_an_export_would_read(exports: RatingsApi) -> None:
    counted = (await exports.client.post(f"{DATASETS}/statistics", json={"min_rating": 5})).json()
    assert (counted["rows"], counted["by_domain"], counted["by_rating"]) == (10, {"(none)": 6, "law": 4}, {"5": 10})


async def test_statistics_tell_what_each_filter_leaves_and_show_the_first(exports: RatingsApi) -> None:
    asked = {"philosopher": "plato", "domain": "nowhere", "min_rating": 5}
    counted = (await exports.client.post(f"{DATASETS}/statistics", json=asked)).json()
    left = [(each["filter"].partition(" ")[0], each["rows"]) for each in counted["by_filter"]]
    assert left[0][0] == "the"
    assert [name for name, rows in left if not rows] == ["domain='nowhere'", "gold_star_only", "min_rating=5"]
    assert (counted["rows"], counted["emptied_by"], counted["examples"]) == (0, "domain='nowhere'", [])

    some = (await exports.client.post(f"{DATASETS}/statistics", json={"min_rating": 5})).json()
    assert (some["emptied_by"], some["by_filter"][-1]["rows"], len(some["examples"])) == (None, 10, 3)
    assert set(some["examples"][0]) == {"prompt", "response", "rating"}


async def test_exports_of_the_same_at_the_same_time_are_one_dataset(exports: RatingsApi) -> None:
    done = await asyncio.gather(*(exports.export(format="alpaca") for _ in range(3)))
    assert sorted(response.status_code for response in done) == [200, 200, 201]
    assert len(await exports.listed()) == 1


async def test_another_pod_on_the_same_volume_waits_for_its_turn(exports: RatingsApi) -> None:
    handle = exports.stored.try_lock()
    assert handle is not None
    assert exports.stored.try_lock() is None
    waiting = asyncio.create_task(exports.export())
    exported_datasets.os.close(handle)
    assert (await waiting).status_code == 201


async def test_the_document_names_the_answers(exports: RatingsApi) -> None:
    app: Any = create_app(exports.services)
    paths = app.openapi()["paths"]
    for path in (EXPORT, "/api/training/export/sft"):
        responses = paths[path]["post"]["responses"]
        assert {"200", "201", "401", "409", "422", "429", "507"} <= responses.keys()
        assert "application/problem+json" in responses["422"]["content"]
    assert (
        "application/jsonl" in paths[f"{DATASETS}/{{dataset_id}}/files/{{file}}"]["get"]["responses"]["200"]["content"]
    )
