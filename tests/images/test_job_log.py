"""The trainer's log on the volume; on the trainer's own module, without a training."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from tests.images.ml_environment import REPOSITORY
from tests.images.training import progress_server

TRAINER = REPOSITORY / "trainer_image"
CRASH = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from failures import log
from job_log import keep_log
keep_log(Path(sys.argv[2]), "pod-1")
log("begins", seconds=1.5)
raise RuntimeError("the GPU fell off")
"""

POSTING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from finetune_operator.contract.training import TrainingConfig
from job_log import POSTED
POSTED.begin(TrainingConfig.model_validate_json(Path(sys.argv[3]).read_bytes()), Path(sys.argv[2]))
"""


def training_config(progress_url: str) -> TrainingConfig:
    return TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato", uid="uid"),
        model="plato",
        method="SFT",
        backend="HuggingFace",
        base_model_name="tiny",
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(),
        progress_url=progress_url,
    )


@pytest.fixture(scope="module")
def job_log() -> ModuleType:
    sys.path.insert(0, str(TRAINER))
    try:
        return importlib.import_module("job_log")
    finally:
        sys.path.pop(0)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_attempts_follow_one_another_by_name(job_log: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "train.log"

    job_log.JobLog(file, "pod-1").write({"time": "t1", "message": "step", "step": 1})
    job_log.JobLog(file, "pod-2").write({"time": "t2", "message": "step", "step": 2})

    assert lines(file) == [
        {"time": "t1", "attempt": "pod-1", "message": "step", "step": 1},
        {"time": "t2", "attempt": "pod-2", "message": "step", "step": 2},
    ]


def test_the_last_part_is_of_both_files_and_whole_lines(
    job_log: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_log, "LAST_PART_BYTES", 11)
    assert job_log.last_part(tmp_path / "train.log") == ""
    (tmp_path / "train.log.1").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "train.log").write_text("five\nsix\n")
    assert job_log.last_part(tmp_path / "train.log") == "four\nfive\nsix\n"


def test_the_end_of_the_log_is_posted_with_the_crash(tmp_path: Path) -> None:
    with progress_server() as server:
        config = tmp_path / "config.json"
        config.write_text(training_config(server.url).model_dump_json(by_alias=True))
        command = [sys.executable, "-c", POSTING + CRASH, str(TRAINER), str(tmp_path / "train.log"), str(config)]
        ended = subprocess.run(command, check=False, capture_output=True)
    assert ended.returncode == 1
    said = [json.loads(line) for line in server.logs[-1].text.splitlines()]
    assert [line["message"] for line in said] == ["begins", "the trainer crashed"]
    assert "the GPU fell off" in said[-1]["error"]


def test_a_full_file_is_put_aside_once(job_log: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    log = job_log.JobLog(file, "pod", most_bytes=1000)

    for step in range(100):
        log.write({"time": "t", "message": "step", "step": step})

    assert {path.name for path in tmp_path.iterdir()} == {"train.log", "train.log.1"}
    kept = [line["step"] for line in lines(tmp_path / "train.log.1") + lines(file)]
    assert kept == list(range(kept[0], 100))
    assert all(path.stat().st_size <= 1100 for path in tmp_path.iterdir())


def test_an_attempt_goes_on_in_the_file_that_another_one_began(job_log: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    waiting, training = (job_log.JobLog(file, name, most_bytes=200) for name in ("waiting", "training"))
    waiting.write({"message": "waits"})
    for step in range(3):
        training.write({"message": "step", "step": step, "padding": "x" * 60})

    waiting.write({"message": "leaves"})

    assert lines(file)[-1]["message"] == "leaves"


def test_a_volume_that_takes_nothing_is_told_once_and_ends_nothing(
    job_log: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = job_log.JobLog(tmp_path / "no directory" / "train.log", "pod")

    log.write({"message": "one"})
    log.write({"message": "two"})

    told = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["the log can no longer be kept on the volume"]


def test_a_crash_leaves_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / "train.log"
    command = [sys.executable, "-c", CRASH, str(TRAINER), str(file)]

    crashed = subprocess.run(command, capture_output=True, text=True, check=False)

    begun, end = lines(file)
    assert crashed.returncode == 1
    assert json.loads(crashed.stdout)["message"] == begun["message"] == "begins"
    assert (begun["attempt"], begun["seconds"]) == ("pod-1", 1.5)
    assert end["message"] == "the trainer crashed"
    assert "RuntimeError: the GPU fell off" in end["error"]
    assert end["error"].splitlines()[-1] in crashed.stderr
