"""Datasets that are there: listed, shown, downloaded and deleted, and nothing else on the volume is reached."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_operator.store import exported_datasets
from finetune_operator.web.problems import Problem
from finetune_operator.web.stored_files import stored_file
from tests.unit.store.ratings_database import rating
from tests.unit.web.conftest import NOON, Api
from tests.unit.web.datasets.conftest import ABSENT, lines
from tests.unit.web.ratings_api import DATASETS, RatingsApi, ratings_api
from tests.unit.web.test_access import is_problem


async def test_the_list_goes_from_new_to_old_page_by_page(exports: RatingsApi) -> None:
    ids = [(await exports.made(limit=limit))["id"] for limit in (1, 2, 3)]
    (exports.directory / "lost+found").mkdir()
    (exports.directory / ABSENT).mkdir()
    first = (await exports.client.get(DATASETS, params={"limit": 2})).json()
    assert ([dataset["id"] for dataset in first["datasets"]], first["total"]) == (ids[:0:-1], 3)
    before = first["datasets"][-1]["created_at"]
    for rest in ({"before": before}, {"after": first["next"]}):
        second = (await exports.client.get(DATASETS, params={"limit": 2, **rest})).json()
        assert [dataset["id"] for dataset in second["datasets"]] == ids[:1]
        assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)


async def test_each_dataset_is_on_one_page(exports: RatingsApi) -> None:
    object.__setattr__(exports.services, "now", lambda: NOON)
    for limit in (1, 2, 3):
        await exports.made(limit=limit)
    expected = await exports.listed()
    for limit in (1, 2, 3):
        found, query = [], {"limit": str(limit)}
        while True:
            page = (await exports.client.get(DATASETS, params=query)).json()
            found += [dataset["id"] for dataset in page["datasets"]]
            assert (page["has_more"], page["next"] is None) == (len(found) < 3, len(found) == 3)
            assert page["total"] == 3
            if not page["has_more"]:
                break
            query["after"] = page["next"]
        assert found == expected
    wrong = await exports.client.get(DATASETS, params={"after": "_abc"})
    assert is_problem(wrong, 422, "wrong-cursor")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["law", "all", "alpaca"]),
        ({"format": "alpaca"}, ["alpaca"]),
        ({"format": "dpo"}, []),
        ({"format": "chatml", "domain": "law"}, ["law"]),
        ({"format": "alpaca", "domain": "law"}, []),
        ({"domain": "l%"}, []),
        ({"philosopher": "kant"}, []),
        ({"task_type": "poem"}, []),
    ],
)
async def test_datasets_are_listed_by_what_was_asked_for(
    exports: RatingsApi, query: dict[str, str], expected: list[str]
) -> None:
    made = {
        (await exports.made(format="alpaca"))["id"]: "alpaca",
        (await exports.made())["id"]: "all",
        (await exports.made(domain="law"))["id"]: "law",
    }
    page = (await exports.client.get(DATASETS, params=query)).json()
    assert [made[dataset["id"]] for dataset in page["datasets"]] == expected
    assert (page["total"], page["bytes"] > 0) == (len(expected), bool(expected))


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


@pytest.mark.parametrize("part", [None, "bytes=10-19"], ids=["whole", "a part"])
async def test_a_dataset_that_is_deleted_while_it_is_sent_is_sent_whole(
    exports: RatingsApi, monkeypatch: pytest.MonkeyPatch, part: str | None
) -> None:
    made = await exports.made()
    content = (exports.directory / made["dataset_path"]).read_bytes()

    def deleted(*_: object, **__: object) -> None:
        exports.stored.delete(made["id"])

    monkeypatch.setattr("finetune_operator.web.datasets.logger.info", deleted)
    url = made["files"][0]["download_path"]
    response = await exports.client.get(url, headers={"Range": part} if part else {})
    assert (response.status_code, response.content) == ((206, content[10:20]) if part else (200, content))
    assert is_problem(await exports.client.get(url), 404, "unknown-dataset")


async def test_a_download_leaves_no_file_open(exports: RatingsApi) -> None:
    made = await exports.made()
    url = made["files"][0]["download_path"]
    tag = (await exports.client.get(url)).headers["etag"]
    before = len(os.listdir("/dev/fd"))
    for headers in ({}, {"If-None-Match": tag}, {"Range": "bytes=0-0"}, {"Range": "bytes=999999999-"}):
        await exports.client.get(url, headers=headers)
    assert len(os.listdir("/dev/fd")) == before


async def test_a_deleted_dataset_is_gone_with_its_files(exports: RatingsApi) -> None:
    made = await exports.made()
    assert (await exports.client.delete(f"{DATASETS}/{made['id']}")).status_code == 204
    for path in ("", "/rows", "/files/train.jsonl"):
        assert is_problem(await exports.client.get(f"{DATASETS}/{made['id']}{path}"), 404, "unknown-dataset")
    assert is_problem(await exports.client.delete(f"{DATASETS}/{made['id']}"), 404, "unknown-dataset")
    assert [path.name for path in exports.directory.iterdir()] == [exported_datasets.LOCK_NAME]


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
    ("served", "claim", "given"),
    [
        (("finetune",), None, True),
        (("finetune", "other"), None, False),
        ((), None, False),
        ((), "finetune/datasets", True),
        ((), "other/datasets", False),
    ],
)
async def test_trainings_are_given_ratings_where_no_other_namespaces_can_be_among_them(
    exports: RatingsApi, served: tuple[str, ...], claim: str | None, given: bool
) -> None:
    made = await exports.made()
    settings = exports.services.settings.model_copy(update={"namespaces": served, "datasets_claim": claim})
    services = replace(exports.services, settings=settings)
    if given:
        found = stored_file(services, "finetune", made["id"], "train.jsonl")
        with found.content as content:
            assert content.read() == (exports.directory / made["id"] / "train.jsonl").read_bytes()
    else:
        with pytest.raises(Problem, match="no exported dataset is given to namespace finetune"):
            stored_file(services, "finetune", made["id"], "train.jsonl")
