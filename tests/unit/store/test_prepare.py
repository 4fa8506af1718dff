"""What the prepare container makes, and makes once: the same dataset of the same rows, in two parts."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetReport, VolumeSource
from finetune_operator.contract.preflight import Preflight, RemoteWork
from finetune_operator.contract.remote import RemoteConfig
from tests.unit.store.prepare_pod import VOLUME, Pod, config, prompts
from tests.unit.store.ratings_database import rating


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


def test_a_provider_is_told_the_rows_as_steps_and_tokens(pod: Pod) -> None:
    remote = RemoteConfig(base_url="https://provider.test/v1", model="gpt-4.1-mini", suffix="plato")
    wanted = config(test_fraction=0.25).model_copy(update={"remote": remote})
    assert pod.ratings(*(rating(number) for number in range(40))).run(wanted) == 0
    characters = len(pod.path("train.jsonl").read_text())
    assert pod.report.preflight == Preflight(remote=RemoteWork(steps=23, tokens=math.ceil(characters * 3 / 4)))


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
