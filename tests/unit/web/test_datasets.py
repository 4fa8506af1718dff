"""Datasets of ratings over REST: made, found again, listed, shown, downloaded, deleted."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.core.written_records import WRITTEN
from finetune_operator.store import exported_datasets
from finetune_operator.web.app import create_app
from finetune_operator.web.dataset_schemas import FORMATS, DpoExportRequest
from tests.postgres_server import PostgresServer, running
from tests.unit.store.ratings_database import fill_database, rating, write_ratings
from tests.unit.web.conftest import Api
from tests.unit.web.ratings_api import DATASETS, EXPORT, RatingsApi, ratings_api
from tests.unit.web.test_access import is_problem

ABSENT = f"chatml-{'0' * 32}"


def all_kinds_of_rows() -> list[dict[str, Any]]:
    """Ratings that each format can make something of: ten gold stars, and a bad answer to the same prompts."""
    good = [rating(number, domain="law" if number < 4 else None, confidence=number / 10) for number in range(10)]
    bad = [
        rating(number, response=f"Nobody knows what {number} is for.", rating=1, is_gold_star=False)
        for number in range(10)
    ]
    return good + bad


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ratings") / "ratings.db"
    write_ratings(file, all_kinds_of_rows())
    return file


@pytest.fixture
async def exports(api: Api, tmp_path: Path, database: Path) -> AsyncIterator[RatingsApi]:
    copy = shutil.copy(database, tmp_path)
    async with ratings_api(api, tmp_path, f"sqlite:///{copy}") as found:
        yield found


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running() as server:
        yield server


async def lines(exports: RatingsApi, made: dict[str, Any], name: str = "train.jsonl") -> list[bytes]:
    response = await exports.client.get(f"{DATASETS}/{made['id']}/files/{name}")
    assert response.status_code == 200, response.text
    return response.content.splitlines()


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


@pytest.mark.parametrize(("share", "points"), [(0.0, 1), (0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_a_difference_of_confidence_is_a_share_of_the_scale(share: float, points: int) -> None:
    assert DpoExportRequest(min_confidence_diff=share).config().min_rating_difference == points


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


# Nothing found


@pytest.mark.parametrize(
    ("filters", "detail"),
    [
        ({"philosopher": "kant"}, "philosopher='kant' leaves none of the 20 ratings"),
        ({"domain": "law", "task_type": "poetry"}, "task_type='poetry' leaves none of the 4 ratings"),
        ({"min_confidence": 1.0}, "min_confidence=1.0 leaves none of the 20 ratings"),
        ({"philosopher": "minRating=1"}, "philosopher='minRating=1' leaves none"),
        ({"philosopher": "' OR 1=1 --"}, "leaves none of the 20 ratings"),
        ({"domain": "x'; DROP TABLE ml_analysis_rating; --"}, "leaves none of the 20 ratings"),
        ({"task_type": "$philosopher"}, "leaves none of the 20 ratings"),
    ],
)
async def test_no_gold_stars_name_the_filter(exports: RatingsApi, filters: dict[str, Any], detail: str) -> None:
    response = await exports.export(**filters)
    assert is_problem(response, 422, "dataset-empty")
    assert detail in response.json()["detail"]
    assert await exports.listed() == []
    assert (await exports.made())["sample_count"] == 10


async def test_gold_stars_and_ratings_are_filters_too(api: Api, tmp_path: Path) -> None:
    async with ratings_api(api, tmp_path, [rating(number, rating=4) for number in range(3)]) as exports:
        assert "min_rating=5 leaves none of the 3" in (await exports.export(min_rating=5)).json()["detail"]
        response = await exports.export(min_examples=7, min_prompt_characters=500)
        assert is_problem(response, 422, "dataset-too-small")
        assert "3 ShortPrompt" in response.json()["detail"]
        assert "lower min_prompt_characters" in response.json()["detail"]
        assert "dataset." not in response.json()["detail"]
    (tmp_path / "none").mkdir()
    async with ratings_api(api, tmp_path / "none", [rating(1, is_gold_star=False)]) as exports:
        assert "gold_star_only (is_gold_star and" in (await exports.export()).json()["detail"]
    (tmp_path / "empty").mkdir()
    async with ratings_api(api, tmp_path / "empty", []) as exports:
        assert "has no rows" in (await exports.export()).json()["detail"]


async def test_pairs_need_two_answers(api: Api, tmp_path: Path) -> None:
    async with ratings_api(api, tmp_path, [rating(number) for number in range(3)]) as exports:
        response = await exports.export("/api/training/export/dpo")
        assert is_problem(response, 422, "dataset-empty")
        assert "min_rating_difference" in response.json()["detail"]


# Not set up


async def test_an_api_without_a_ratings_database_says_what_to_set(exports: RatingsApi) -> None:
    exports.services.settings.ratings_url_file.unlink()
    response = await exports.export()
    assert is_problem(response, 409, "ratings-not-configured")
    assert "api.ratings.existingSecret" in response.json()["detail"]
    stats = (await exports.client.get("/api/training/stats")).json()
    assert not stats["exporters_ready"]
    assert "api.ratings.existingSecret" in stats["missing"][0]


async def test_an_api_without_a_place_for_datasets_says_what_to_set(api: Api, tmp_path: Path) -> None:
    async with ratings_api(api, tmp_path, FINETUNE_DATASETS_DIRECTORY="") as exports:
        for response in (await exports.export(), await exports.client.get(f"{DATASETS}/{ABSENT}")):
            assert is_problem(response, 409, "datasets-not-configured")
            assert "api.datasets.claimName" in response.json()["detail"]
        stats = (await exports.client.get("/api/training/stats")).json()
        assert (stats["directory"], stats["exporters_ready"]) == (None, False)


async def test_a_place_that_can_not_be_written_is_told(exports: RatingsApi) -> None:
    exports.directory.parent.mkdir(exist_ok=True)
    exports.directory.write_text("a file")
    response = await exports.export()
    assert is_problem(response, 503, "datasets-unavailable")
    assert "check the volume" in response.json()["detail"]


async def test_an_unreachable_database_is_told_without_its_address(api: Api, tmp_path: Path) -> None:
    async with ratings_api(api, tmp_path, f"sqlite:///{tmp_path}/hidden.db") as exports:
        response = await exports.export()
        assert is_problem(response, 503, "ratings-unreachable")
        assert "hidden" not in response.text
        assert "api.ratings.existingSecret" in response.json()["detail"]


async def test_the_url_is_read_anew_for_each_export(exports: RatingsApi, tmp_path: Path) -> None:
    url = (tmp_path / "url").read_text()
    (tmp_path / "url").write_text("mysql://u:hunter2@h/d")
    response = await exports.export()
    assert is_problem(response, 503, "ratings-unreachable")
    assert "hunter2" not in response.text
    (tmp_path / "url").write_text(url)
    await exports.made()


async def test_the_same_rows_of_a_database_server_are_the_same_dataset(
    exports: RatingsApi, tmp_path: Path, postgres: PostgresServer
) -> None:
    made = await exports.made(philosopher="plato")
    (tmp_path / "url").write_text(fill_database(postgres.database(), all_kinds_of_rows()[::-1]))
    again = await exports.export(philosopher="plato")
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    response = await exports.export(philosopher="' OR 1=1 --")
    assert is_problem(response, 422, "dataset-empty")


# Listed, shown, downloaded, deleted


async def test_the_list_goes_from_new_to_old_page_by_page(exports: RatingsApi) -> None:
    ids = [(await exports.made(limit=limit))["id"] for limit in (1, 2, 3)]
    (exports.directory / "lost+found").mkdir()
    (exports.directory / ABSENT).mkdir()
    first = (await exports.client.get(DATASETS, params={"limit": 2})).json()
    assert ([dataset["id"] for dataset in first["datasets"]], first["total"]) == (ids[:0:-1], 3)
    before = first["datasets"][-1]["created_at"]
    second = (await exports.client.get(DATASETS, params={"limit": 2, "before": before})).json()
    assert [dataset["id"] for dataset in second["datasets"]] == ids[:1]


async def test_rows_are_shown_page_by_page(exports: RatingsApi) -> None:
    made = await exports.made()
    url = f"{DATASETS}/{made['id']}/rows"
    rows, cursor = [], 0
    while cursor is not None:
        page = (await exports.client.get(url, params={"limit": 3, "cursor": cursor})).json()
        rows += page["rows"]
        cursor = page["next_cursor"]
    assert [row["record"] for row in rows] == [json.loads(line) for line in await lines(exports, made)]
    assert sum(row["bytes"] for row in rows) == made["files"][0]["bytes"]
    assert (await exports.client.get(url, params={"file": "test.jsonl"})).json() == {"rows": [], "next_cursor": None}
    for cursor in (1, 10**12):
        assert is_problem(await exports.client.get(url, params={"cursor": cursor}), 422, "wrong-cursor")


async def test_what_people_wrote_is_shown_as_data(api: Api, tmp_path: Path) -> None:
    attack = "<script>alert('\u202e</script>\u2028 \\u0000 \" --> ${jndi:x}"
    long = "a" * exported_datasets.SHOWN_ROW_MAX_BYTES
    rows = [rating(1, response=attack), rating(2, response=long)]
    async with ratings_api(api, tmp_path, rows) as exports:
        made = await exports.made(format="rawjsonl")
        response = await exports.client.get(f"{DATASETS}/{made['id']}/rows")
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
        shown = {
            row["record"]["response"] if row["record"] else row["bytes"] > len(long) for row in response.json()["rows"]
        }
        assert shown == {attack, True}


async def test_a_download_is_the_file_with_its_name_and_its_hash(exports: RatingsApi) -> None:
    made = await exports.made()
    response = await exports.client.get(made["files"][0]["download_path"])
    content = (exports.directory / made["dataset_path"]).read_bytes()
    assert response.content == content
    assert response.headers["content-disposition"] == f'attachment; filename="{made["id"]}.train.jsonl"'
    assert response.headers["content-type"].startswith("application/jsonl")
    tag = response.headers["etag"]
    assert tag == f'"{hashlib.sha256(content).hexdigest()}"'
    part = await exports.client.get(
        made["files"][0]["download_path"], headers={"Range": "bytes=10-19", "If-Range": tag}
    )
    assert (part.status_code, part.content) == (206, content[10:20])
    known = await exports.client.get(made["files"][0]["download_path"], headers={"If-None-Match": f'"x", W/{tag}'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)


async def test_a_deleted_dataset_is_gone_with_its_files(exports: RatingsApi) -> None:
    made = await exports.made()
    assert (await exports.client.delete(f"{DATASETS}/{made['id']}")).status_code == 204
    for path in ("", "/rows", "/files/train.jsonl"):
        assert is_problem(await exports.client.get(f"{DATASETS}/{made['id']}{path}"), 404, "unknown-dataset")
    assert is_problem(await exports.client.delete(f"{DATASETS}/{made['id']}"), 404, "unknown-dataset")
    assert [path.name for path in exports.directory.iterdir()] == [exported_datasets.LOCK_NAME]


# Attacks


@pytest.mark.parametrize(
    "dataset", ["..", "%2e%2e", "..%2f..%2fetc", "chatml-../x", f"chatml-{'0' * 32}%0a", f"CHATML-{'0' * 32}", ".lock"]
)
async def test_ids_reach_nothing_else(exports: RatingsApi, dataset: str) -> None:
    (exports.directory / "secret").mkdir(parents=True)
    for path in (f"{DATASETS}/{dataset}", f"{DATASETS}/{dataset}/rows", f"{DATASETS}/{dataset}/files/train.jsonl"):
        response = await exports.client.get(path)
        assert response.status_code in (404, 405, 422), response.text
        assert response.headers["content-type"] == "application/problem+json"
    assert (await exports.client.delete(f"{DATASETS}/{dataset}")).status_code in (404, 405, 422)


@pytest.mark.parametrize("file", ["dataset.json", "..%2f..%2furl", "report.json", "train.jsonl%00"])
async def test_files_are_the_two_parts_alone(exports: RatingsApi, file: str) -> None:
    made = await exports.made()
    assert (await exports.client.get(f"{DATASETS}/{made['id']}/files/{file}")).status_code in (404, 422)


async def test_links_that_others_put_onto_the_volume_lead_nowhere(exports: RatingsApi, tmp_path: Path) -> None:
    made = await exports.made()
    directory = exports.directory / made["id"]
    (directory / "train.jsonl").unlink()
    (directory / "train.jsonl").symlink_to(tmp_path / "url")
    linked = exports.directory / ABSENT
    linked.symlink_to(directory)
    for dataset in (made["id"], ABSENT):
        for path in ("files/train.jsonl", "rows"):
            assert is_problem(await exports.client.get(f"{DATASETS}/{dataset}/{path}"), 404, "unknown-dataset")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"format": "parquet"}, "format"),
        ({"format": "ChatML"}, "format"),
        ({"min_rating": 6}, "min_rating"),
        ({"min_rating": "5"}, "min_rating"),
        ({"min_rating": True}, "min_rating"),
        ({"limit": 0}, "limit"),
        ({"limit": 10**18}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"min_confidence": 2}, "min_confidence"),
        ({"test_fraction": 1}, "test_fraction"),
        ({"philosopher": "p" * 257}, "philosopher"),
        ({"philosopher": ["plato"]}, "philosopher"),
        ({"directory": "/etc"}, "directory"),
        ({"url": "postgresql://h/d"}, "url"),
        ({"seed": -1}, "seed"),
    ],
)
async def test_wrong_requests_name_the_field(exports: RatingsApi, body: dict[str, Any], field: str) -> None:
    response = await exports.client.post(EXPORT, json=body)
    assert is_problem(response, 422, "invalid-request")
    assert f"body.{field}" in response.json()["detail"]
    assert not exports.directory.exists()


@pytest.mark.parametrize("body", [b'{"min_confidence": NaN}', b'{"philosopher": "\\ud800"}', b"[]", b"\xff"])
async def test_bodies_that_are_no_json_of_ours(exports: RatingsApi, body: bytes) -> None:
    response = await exports.client.post(EXPORT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)


# Limits


async def test_at_the_largest_number_of_datasets_the_next_is_refused(api: Api, tmp_path: Path) -> None:
    async with ratings_api(api, tmp_path, FINETUNE_DATASETS_MAX_COUNT="2") as exports:
        made = [await exports.made(limit=limit) for limit in (1, 2)]
        response = await exports.export()
        assert is_problem(response, 507, "datasets-full")
        assert "api.datasets.maxCount" in response.json()["detail"]
        assert len(await exports.listed()) == 2
        assert (await exports.export(limit=1)).json() == made[0] | {"created": False}
        await exports.client.delete(f"{DATASETS}/{made[0]['id']}")
        await exports.made()


async def test_a_dataset_that_is_larger_than_what_is_left_is_refused(api: Api, tmp_path: Path) -> None:
    rows = [rating(number, response="x" * 400_000) for number in range(4)]
    async with ratings_api(api, tmp_path, rows, FINETUNE_DATASETS_MAX_BYTES="1048576") as exports:
        response = await exports.export()
        assert is_problem(response, 507, "datasets-full")
        assert "more than 1048576 bytes, which is FINETUNE_DATASETS_MAX_BYTES" in response.json()["detail"]
        assert [path.name for path in exports.directory.iterdir()] == [exported_datasets.LOCK_NAME]
        await exports.made(limit=2)
        response = await exports.export(limit=1)
        assert is_problem(response, 507, "datasets-full")
        assert "are left of FINETUNE_DATASETS_MAX_BYTES" in response.json()["detail"]
        assert "api.datasets.maxBytes" in response.json()["detail"]


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


async def test_what_a_killed_export_left_is_not_listed_and_goes_with_the_next(exports: RatingsApi) -> None:
    made = await exports.made(limit=1)
    left = exports.directory / f"{exported_datasets.WORK_PREFIX}left"
    left.mkdir()
    (left / "train.jsonl").write_text("{}\n")
    damaged = exports.directory / f"alpaca-{'1' * 32}"
    damaged.mkdir()
    assert await exports.listed() == [made["id"]]
    await exports.made(limit=2)
    assert not left.exists()


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
