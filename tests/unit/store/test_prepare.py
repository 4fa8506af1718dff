"""The prepare container as the pod runs it: a config file in, files and a termination message out."""

import json
import random
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import DATABASE_URL_VARIABLE, TERMINATION_MESSAGE_MAX_BYTES, JobPaths
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.store import prepare
from tests.unit.store.ratings_database import rating, write_ratings

LOOKS_LIKE_INJECTION = (
    "' OR '1'='1",
    "plato'; DROP TABLE ml_analysis_rating; --",
    '" OR 1=1 --',
    "plato' UNION SELECT 1, sql, sql, 5 FROM sqlite_master --",
    "%",
    ":domain",
    "\x00",
)


@dataclass
class Pod:
    """A pod's file system."""

    root: Path
    url: str = ""
    surroundings: prepare.Surroundings = field(init=False)

    def __post_init__(self) -> None:
        self.surroundings = prepare.Surroundings(
            self.root / "models", self.root / "datasets", self.root / "artifacts", self.root / "termination-log"
        )
        for directory in (self.surroundings.models / "tiny", self.surroundings.datasets, self.surroundings.artifacts):
            directory.mkdir(parents=True)
        (self.surroundings.models / "tiny" / "config.json").write_text("{}")

    def ratings(self, *rows: dict[str, Any]) -> "Pod":
        self.url = write_ratings(self.root / "ratings.db", rows)
        return self

    def file(self, *lines: str) -> "Pod":
        (self.surroundings.datasets / "data.jsonl").write_text("\n".join(lines))
        return self

    def run(self, config: TrainingConfig) -> int:
        config_file = self.root / "training.json"
        config_file.write_text(config.model_dump_json(by_alias=True))
        return prepare.main(config_file, self.surroundings, {DATABASE_URL_VARIABLE: self.url})

    @property
    def report(self) -> DatasetReport:
        return DatasetReport.model_validate_json(self.surroundings.termination_log.read_bytes())

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json(self.surroundings.termination_log.read_bytes())

    def path(self, name: str) -> Path:
        return Path(JobPaths("ns", "plato", "uid-1", str(self.surroundings.artifacts)).dataset) / name

    def rows(self, part: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(f"{part}.jsonl").read_bytes().splitlines()]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def config(method: str = "SFT", base_model_path: str = "tiny", **dataset: Any) -> TrainingConfig:
    source = dataset.pop("source", None) or RatingsSource()
    return TrainingConfig(
        job=JobIdentity(namespace="ns", name="job", uid="uid-1"),
        model="plato",
        method="DPO" if method == "DPO" else "SFT",
        backend="Unsloth",
        base_model_name="tiny",
        base_model_path=base_model_path,
        dataset=DatasetConfig(source=source, database_timeout_seconds=0.3, **dataset),
        lora=LoraConfig(),
        training=TrainingParameters(),
    )


def prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}


def test_gold_stars_become_a_split_dataset(pod: Pod) -> None:
    rows = [rating(number) for number in range(40)]
    others = [
        rating(100, is_gold_star=False),
        rating(101, use_as_sample_response=False),
        rating(102, rating=3),
        rating(103, prompt="Why?"),
        rating(104, response="So."),
        rating(0),
    ]
    assert pod.ratings(*rows, *others).run(config(test_fraction=0.25)) == 0
    assert (pod.report.rows, pod.report.test_rows) == (30, 10)
    assert pod.report.dropped == {"Duplicate": 1, "LowRating": 1, "ShortPrompt": 1, "ShortResponse": 1}
    assert pod.report.warnings == ("40 examples; 500 or more are recommended",)
    train, test = pod.rows("train"), pod.rows("test")
    assert prompts(train) | prompts(test) == {row["prompt"] for row in rows}
    assert not prompts(train) & prompts(test)
    assert train[0].keys() == {"messages"}
    assert [message["role"] for message in train[0]["messages"]] == ["user", "assistant"]
    assert DatasetReport.model_validate_json(pod.path("report.json").read_bytes()) == pod.report


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RatingsSource(philosopher="kant"), {2}),
        (RatingsSource(domain="logic"), {3}),
        (RatingsSource(task_type="visualization"), {4}),
        (RatingsSource(min_rating=5), {1, 2, 3, 4}),
        (RatingsSource(gold_star_only=False), {1, 2, 3, 4, 5, 6}),
        (RatingsSource(gold_star_only=False, min_rating=1, limit=2), {6, 7}),
    ],
)
def test_filters(pod: Pod, source: RatingsSource, expected: set[int]) -> None:
    pod.ratings(
        rating(1),
        rating(2, philosopher="kant"),
        rating(3, domain="logic"),
        rating(4, task_type="visualization"),
        rating(5, is_gold_star=False),
        rating(6, is_gold_star=False, rating=4),
        rating(7, is_gold_star=False, rating=2),
    )
    assert pod.run(config(source=source)) == 0
    assert prompts(pod.rows("train") + pod.rows("test")) == {rating(number)["prompt"] for number in expected}


def test_all_pages_are_read(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pod.ratings(*(rating(number) for number in range(50))).run(config()) == 0
    assert pod.report.rows + pod.report.test_rows == 50


def test_dpo_pairs_the_best_answer_with_the_worst_whatever_the_sft_filters_say(pod: Pod) -> None:
    def answer(prompt: str, text: str, stars: int) -> dict[str, Any]:
        return rating(0, prompt=prompt, response=text, rating=stars, is_gold_star=False)

    good, fair, bad = "A good answer, long enough.", "A fair answer, long enough.", "No."
    pod.ratings(
        answer("What is justice?", fair, 3),
        answer("What is justice?", bad, 1),
        answer("What is justice?", good, 5),
        answer("What is a circle?", fair, 3),
        answer("What is a circle?", good, 3),
        answer("What is courage?", good, 5),
        answer("What is courage?", good, 3),
        answer("What is courage?", fair, 2),
    )
    assert pod.run(config("DPO", test_fraction=0.0, min_rating_difference=2)) == 0
    assert (
        pod.rows("train")
        == [
            {
                "prompt": [{"role": "user", "content": "What is justice?"}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
            },
            {
                "prompt": [{"role": "user", "content": "What is courage?"}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": fair}],
            },
        ][:: 1 if pod.rows("train")[0]["prompt"][0]["content"] == "What is justice?" else -1]
    )
    assert pod.report.dropped == {"NoPair": 3}


@pytest.mark.parametrize("name", ["data.jsonl", "link.jsonl"])
def test_a_file_on_a_volume(pod: Pod, name: str) -> None:
    pod.file(
        '\ufeff{"instruction": "What is a circle?", "output": "A line around a centre."}',
        "",
        '{"instruction": "What is justice?", "output": "Everyone doing their own."}',
    )
    (pod.surroundings.datasets / "link.jsonl").symlink_to("data.jsonl")
    assert pod.run(config(source=VolumeSource(path=name), format="Alpaca")) == 0
    assert (pod.report.rows, pod.report.test_rows) == (1, 1)


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


VOLUME = VolumeSource(path="data.jsonl")
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
        FailureReason.DATASET_TOO_SMALL, "1 of 1 rows", "add data", rows=(rating(1),), config=config(min_examples=2)
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


def test_a_finished_dataset_is_left_alone(pod: Pod) -> None:
    assert pod.ratings(rating(1), rating(2)).run(config()) == 0
    before = pod.path("report.json").stat().st_ino, pod.report
    pod.url = "sqlite:////nowhere/x.db"
    assert pod.run(config()) == 0
    assert (pod.path("report.json").stat().st_ino, pod.report) == before


def test_a_half_made_dataset_is_made_anew(pod: Pod) -> None:
    pod.path("").mkdir(parents=True)
    pod.path("train.jsonl").write_text("half a li")
    assert pod.ratings(rating(1), rating(2)).run(config()) == 0
    assert len(pod.rows("train")) == 1


def test_the_order_of_rows_in_the_database_does_not_matter(pod: Pod, tmp_path: Path) -> None:
    rows = [rating(number) for number in range(60)]
    assert pod.ratings(*rows).run(config()) == 0
    shuffled = Pod(tmp_path / "other")
    random.Random(7).shuffle(rows)
    assert shuffled.ratings(*rows).run(config()) == 0
    assert shuffled.report == pod.report
    assert shuffled.path("train.jsonl").read_bytes() == pod.path("train.jsonl").read_bytes()


def test_a_file_with_the_same_content_has_the_same_digest(pod: Pod, tmp_path: Path) -> None:
    rows = [rating(number) for number in range(20)]
    assert pod.ratings(*rows).run(config()) == 0
    other = Pod(tmp_path / "other").file(
        *(json.dumps({"instruction": row["prompt"], "output": row["response"]}) for row in rows)
    )
    assert other.run(config(source=VOLUME, format="Alpaca")) == 0
    assert other.report.digest == pod.report.digest


def test_another_dataset_has_another_digest(pod: Pod, tmp_path: Path) -> None:
    assert pod.ratings(rating(1), rating(2)).run(config()) == 0
    other = Pod(tmp_path / "other").ratings(rating(1), rating(3))
    assert other.run(config()) == 0
    assert other.report.digest != pod.report.digest


@pytest.mark.parametrize("column", ["philosopher", "domain", "task_type"])
@pytest.mark.parametrize("value", LOOKS_LIKE_INJECTION)
def test_filters_are_values_and_never_sql(pod: Pod, column: str, value: str) -> None:
    pod.ratings(rating(1), rating(2, **{column: value}))
    assert pod.run(config(source=RatingsSource(**{column: value}))) == 0
    assert prompts(pod.rows("train")) == {rating(2)["prompt"]}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_filter_text_selects_exactly_its_rows(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    pod = Pod(tmp_path_factory.mktemp("pod")).ratings(rating(1, domain=f"{value}x"), rating(2, domain=value))
    assert pod.run(config(source=RatingsSource(domain=value))) == 0
    assert prompts(pod.rows("train")) == {rating(2)["prompt"]}


def test_a_database_that_is_being_written_is_read_without_locks(pod: Pod) -> None:
    pod.ratings(rating(1), rating(2))
    writer = sqlite3.connect(pod.root / "ratings.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert pod.run(config()) == 0
    finally:
        writer.rollback()
        writer.close()


def test_columns_of_odd_content_fall_to_the_quality_rules(pod: Pod) -> None:
    pod.ratings(rating(1))
    with sqlite3.connect(pod.root / "ratings.db") as connection:
        connection.execute(
            "INSERT INTO ml_analysis_rating "
            "SELECT 9, x'00ff', response, rating, 1, 1, NULL, NULL, NULL, NULL, created_at FROM ml_analysis_rating"
        )
    connection.close()
    assert pod.run(config()) == 0
    assert (pod.report.dropped, pod.report.dropped_rows) == ({"InvalidText": 1}, {"InvalidText": ("9",)})


def test_on_a_read_only_volume_the_database_is_read_without_its_log(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.ratings(rating(1), rating(2))
    writer = sqlite3.connect(pod.root / "ratings.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE ml_analysis_rating SET domain = 'logic'")
    writer.commit()
    monkeypatch.setattr("finetune_operator.store.ratings.os.access", lambda *_: False)
    assert pod.run(config(source=RatingsSource(domain="ethics"))) == 0
    writer.close()
    assert "write-ahead log" in pod.report.warnings[0]
