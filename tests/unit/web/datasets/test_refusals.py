"""Exports that are refused: wrong requests, no rows, nothing set up, or no room left."""

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.store import exported_datasets
from tests.unit.store.ratings_database import rating
from tests.unit.web.conftest import Api
from tests.unit.web.datasets.conftest import ABSENT
from tests.unit.web.ratings_api import DATASETS, EXPORT, RatingsApi, ratings_api
from tests.unit.web.test_access import is_problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"format": "parquet"}, "format"),
        ({"format": "ChatML"}, "format"),
        ({"min_rating": 6}, "min_rating"),
        ({"min_rating": "5"}, "min_rating"),
        ({"min_confidence_diff": 1.5}, "min_confidence_diff"),
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


async def test_pairs_are_apart_by_points_or_by_a_share(exports: RatingsApi) -> None:
    response = await exports.client.post(EXPORT, json={"min_rating_difference": 1, "min_confidence_diff": 0.5})
    assert is_problem(response, 422, "invalid-request")
    assert "set one of min_rating_difference and min_confidence_diff, not both" in response.json()["detail"]


@pytest.mark.parametrize("body", [b'{"min_confidence": NaN}', b'{"philosopher": "\\ud800"}', b"[]", b"\xff"])
async def test_bodies_that_are_no_json_of_ours(exports: RatingsApi, body: bytes) -> None:
    response = await exports.client.post(EXPORT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)


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
        assert "lower min_rating_difference or min_confidence_diff" in response.json()["detail"]


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
