"""What else makes pages slow: API keys, a long loss curve, exported datasets, and a million ratings to count."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.dataset_export import fill_ratings
from bench.many_resources import NAMESPACE
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource
from finetune_operator.store.exported_datasets import METADATA_NAME, StoredDataset, StoredFile
from finetune_operator.store.tables import ProgressPoint, StoredApiKey

ACCOUNT = f"{NAMESPACE}/robot"
KEYS, POINTS = 10_000, 50_000
"""Points: as many as steps of two hundred thousand rows in batches of four."""
DATASETS, DATASET_ROWS = 100, 20_000
INSERTED_AT_ONCE = 1000
DATASET = f"chatml-{0:032x}"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

Row = dict[str, Any]


async def fill(engine: AsyncEngine, training: str) -> None:
    """Keys, of which one in ten is active, and the curve of one training; into the newest schema."""
    async with engine.begin() as connection:
        for begin in range(0, KEYS, INSERTED_AT_ONCE):
            await connection.execute(insert(StoredApiKey), [_key(begin + each) for each in range(INSERTED_AT_ONCE)])
        for begin in range(0, POINTS, INSERTED_AT_ONCE):
            points = [_point(training, begin + each) for each in range(INSERTED_AT_ONCE)]
            await connection.execute(insert(ProgressPoint), points)


def fill_datasets(directory: Path) -> None:
    """As many as are kept, each of twenty thousand rows."""
    for number in range(DATASETS):
        made = directory / f"chatml-{number:032x}"
        made.mkdir(parents=True)
        lines = "".join(_line(each) for each in range(DATASET_ROWS))
        (made / "train.jsonl").write_text(lines)
        (made / "test.jsonl").write_text(_line(0))
        stored = StoredDataset(
            id=made.name,
            format="ChatML",
            config=DatasetConfig(source=RatingsSource()),
            report=DatasetReport(rows=DATASET_ROWS, test_rows=1, digest=f"sha256:{number:064x}"),
            files=(
                StoredFile(name="train.jsonl", rows=DATASET_ROWS, bytes=len(lines), sha256="0" * 64),
                StoredFile(name="test.jsonl", rows=1, bytes=len(_line(0)), sha256="0" * 64),
            ),
            created_at=NOON + timedelta(minutes=number),
            created_by="ada",
        )
        (made / METADATA_NAME).write_text(stored.model_dump_json(by_alias=True))


def fill_ratings_database(directory: Path, rows: int) -> Path:
    """The file that has its address."""
    database, address = directory / "ratings.db", directory / "ratings-url"
    if not database.exists():
        fill_ratings(database, rows)
        address.write_text(f"sqlite:///{database}")
    return address


def _key(number: int) -> Row:
    namespace, _, account = ACCOUNT.partition("/")
    return {
        "id": f"{number:016x}",
        "digest": "0" * 64,
        "name": f"nightly-{number}",
        "namespace": namespace,
        "service_account": account,
        "created_by": "ada",
        "created_at": NOON + timedelta(seconds=number),
        "expires_at": NOON + timedelta(days=3650),
        "revoked_at": NOON + timedelta(days=1) if number % 10 else None,
    }


def _point(training: str, number: int) -> Row:
    return {
        "job_uid": f"uid-{training}",
        "attempt": "pod-1",
        "step": number,
        "namespace": NAMESPACE,
        "name": training,
        "total_steps": POINTS,
        "epoch": 3 * number / POINTS,
        "total_epochs": 3.0,
        "loss": 2 - number / POINTS,
        "eval_loss": 2.1 - number / POINTS if number % 100 == 0 else None,
        "time": NOON + timedelta(seconds=number),
    }


def _line(number: int) -> str:
    question = {"role": "user", "content": f"What is the use of question {number}? " * 4}
    answer = {"role": "assistant", "content": "It is of use to those who think about it. " * 12}
    return json.dumps({"messages": [question, answer]}) + "\n"
