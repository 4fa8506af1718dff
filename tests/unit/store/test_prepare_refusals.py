"""What the prepare container refuses, each with what to change, and in a message that fits."""

import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_operator.contract.dataset import RatingsSource, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.store import prepare
from tests.unit.store.prepare_pod import VOLUME, Pod, config
from tests.unit.store.ratings_database import rating


@dataclass(frozen=True)
class BadInput:
    """One mistake and what is said about it."""

    reason: FailureReason
    message: str
    remedy: str
    rows: tuple[dict[str, Any], ...] = ()
    lines: tuple[str, ...] = ()
    config: TrainingConfig = field(default_factory=config)
    url: str | None = None


GOOD_LINE = '{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}'
BAD_INPUTS = {
    "base model absent": BadInput(
        FailureReason.BASE_MODEL_NOT_FOUND, "no such directory", "baseModel", config=config(base_model_path="huge")
    ),
    "empty table": BadInput(FailureReason.DATASET_EMPTY, "has no rows", "collect ratings"),
    "filter leaves nothing": BadInput(
        FailureReason.DATASET_EMPTY,
        "domain='alchemy' leaves none of the 3 rows",
        "relax domain",
        rows=tuple(rating(number) for number in range(3)),
        config=config(source=RatingsSource(philosopher="plato", domain="alchemy")),
    ),
    "no gold stars": BadInput(
        FailureReason.DATASET_EMPTY,
        "goldStarOnly",
        "relax goldStarOnly",
        rows=(rating(1, is_gold_star=False),),
    ),
    "all rated low": BadInput(
        FailureReason.DATASET_EMPTY,
        "minRating=4 leaves none of the 1 rows",
        "relax minRating",
        rows=(rating(1, rating=3),),
    ),
    "all rows too short": BadInput(
        FailureReason.DATASET_TOO_SMALL,
        "0 of 3 rows are left, dataset.minExamples is 2; dropped: 3 ShortResponse",
        "minResponseCharacters",
        rows=tuple(rating(number, response="Yes.") for number in range(3)),
        config=config(min_examples=2),
    ),
    "too few rows": BadInput(
        FailureReason.DATASET_TOO_SMALL,
        "1 of 1 rows",
        "rate more answers",
        rows=(rating(1),),
        config=config(min_examples=2),
    ),
    "no pairs": BadInput(
        FailureReason.DATASET_EMPTY,
        "no prompt has two answers",
        "rate several answers",
        rows=tuple(rating(number) for number in range(3)),
        config=config("DPO"),
    ),
    "wrong scheme": BadInput(
        FailureReason.DATABASE_UNREACHABLE, "'mysql' are not supported", "secretRef", url="mysql://u:hunter2@db/x"
    ),
    "not a URL": BadInput(FailureReason.DATABASE_UNREACHABLE, "can't be parsed", "secretRef", url="hunter2"),
    "no database file": BadInput(
        FailureReason.DATABASE_UNREACHABLE, "no SQLite database", "secretRef", url="sqlite:////nowhere/x.db"
    ),
    "path outside": BadInput(
        FailureReason.DATASET_INVALID,
        "leads out of its volume",
        "below the volume",
        lines=(GOOD_LINE,),
        config=config(source=VolumeSource(path="../termination-secret")),
    ),
    "path absent": BadInput(
        FailureReason.DATASET_INVALID,
        "does not exist",
        "name a JSONL or Parquet file",
        config=config(source=VolumeSource(path="none.jsonl")),
    ),
    "path is a directory": BadInput(
        FailureReason.DATASET_INVALID, "is not a file", "JSONL", config=config(source=VolumeSource(path="."))
    ),
    "bad line": BadInput(
        FailureReason.DATASET_INVALID,
        "row 3 of data.jsonl is not a OpenAI record",
        "each row must look like",
        lines=(GOOD_LINE, "", '{"messages": 3}'),
        config=config(source=VOLUME, format="OpenAI"),
    ),
    "empty file": BadInput(FailureReason.DATASET_EMPTY, "no rows", "dataset.volume.path", config=config(source=VOLUME)),
}


@pytest.mark.parametrize("bad", BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_says_what_to_change(pod: Pod, bad: BadInput) -> None:
    (pod.root / "termination-secret").write_text(GOOD_LINE)
    pod.ratings(*bad.rows).file(*bad.lines)
    pod.url = pod.url if bad.url is None else bad.url
    assert pod.run(bad.config) == EXIT_CODES[bad.reason]
    assert pod.failure.reason == bad.reason
    assert bad.message in pod.failure.message
    assert bad.remedy in pod.failure.remedy
    assert "hunter2" not in pod.surroundings.termination_log.read_text()
    assert not pod.path("").exists()
    assert not list(pod.surroundings.artifacts.rglob(".dataset-*"))


def test_a_link_out_of_the_volume_is_refused(pod: Pod) -> None:
    (pod.root / "secret.jsonl").write_text(GOOD_LINE)
    (pod.surroundings.datasets / "data.jsonl").symlink_to(pod.root / "secret.jsonl")
    assert pod.run(config(source=VOLUME)) == EXIT_CODES[FailureReason.DATASET_INVALID]
    assert "leads out of its volume" in pod.failure.message


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_database_that_never_answers(pod: Pod, silent_server: int) -> None:
    pod.url = f"postgresql://plato:hunter2@127.0.0.1:{silent_server}/ratings"
    assert pod.run(config()) == EXIT_CODES[FailureReason.DATABASE_UNREACHABLE]
    assert f"postgresql://plato:***@127.0.0.1:{silent_server}/ratings" in pod.failure.message
    assert "hunter2" not in pod.surroundings.termination_log.read_text()


def test_a_database_without_the_table(pod: Pod) -> None:
    sqlite3.connect(pod.root / "other.db").execute("CREATE TABLE other (id INTEGER)").connection.close()
    pod.url = f"sqlite:///{pod.root}/other.db"
    assert pod.run(config()) == EXIT_CODES[FailureReason.DATASET_INVALID]
    assert "has no table ml_analysis_rating" in pod.failure.message


def test_a_table_without_a_column_that_a_filter_names(pod: Pod) -> None:
    connection = sqlite3.connect(pod.root / "other.db")
    connection.execute("CREATE TABLE ml_analysis_rating (id INTEGER, prompt TEXT, response TEXT, rating INTEGER)")
    connection.close()
    pod.url = f"sqlite:///{pod.root}/other.db"
    assert pod.run(config(source=RatingsSource(philosopher="plato"))) != 0
    assert "philosopher" in pod.failure.message


def test_an_unreadable_config_is_refused(pod: Pod) -> None:
    config_file = pod.root / "training.json"
    config_file.write_text("{}")
    assert prepare.main(config_file, pod.surroundings, {}) == EXIT_CODES[FailureReason.INVALID_CONFIG]


def test_a_long_message_fits_the_termination_message(pod: Pod) -> None:
    long_path = "ä/" * 3000
    assert pod.run(config(source=VolumeSource(path=long_path))) != 0
    assert pod.surroundings.termination_log.stat().st_size <= TERMINATION_MESSAGE_MAX_BYTES
    assert pod.failure.reason == FailureReason.DATASET_INVALID
