"""Datasets of ratings over REST: an api whose database has something for each format."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import Api
from tests.unit.web.ratings_api import DATASETS, RatingsApi, ratings_api

ABSENT = f"chatml-{'0' * 32}"


def all_kinds_of_rows() -> list[dict[str, Any]]:
    """Ratings that each format can make something of: ten gold stars, and a bad answer to the same prompts."""
    good = [rating(number, domain="law" if number < 4 else None, confidence=number / 10) for number in range(10)]
    bad = [
        rating(number, response=f"Nobody knows what {number} is for.", rating=1, is_gold_star=False)
        for number in range(10)
    ]
    return good + bad


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ratings") / "ratings.db"
    write_ratings(file, all_kinds_of_rows())
    return file


@pytest.fixture
async def exports(api: Api, tmp_path: Path, database: Path) -> AsyncIterator[RatingsApi]:
    copy = shutil.copy(database, tmp_path)
    async with ratings_api(api, tmp_path, f"sqlite:///{copy}") as found:
        yield found


async def lines(exports: RatingsApi, made: dict[str, Any], name: str = "train.jsonl") -> list[bytes]:
    response = await exports.client.get(f"{DATASETS}/{made['id']}/files/{name}")
    assert response.status_code == 200, response.text
    return response.content.splitlines()
