"""kill -9 at any moment costs at most one save interval, and changes nothing of what comes out."""

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.training import TrainingResult
from tests.images.ml_environment import REPOSITORY
from tests.images.training import Job, environment_of_images

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
KILLS = 50
SAVE_STEPS = 5
STEPS = 320  # below 400 each step's loss is logged
TRAINING = {"max_steps": STEPS, "save_steps": SAVE_STEPS, "batch_size": 2, "learning_rate": 5e-4, "max_seq_length": 96}
EXIT_LOCKED = 75


def attempts_at(job: Job, kills: int) -> list[dict[str, Any]]:
    """What became of the attempts at a job, all but the last of which were killed."""
    config, report = job.artifacts / f"{job.name}.json", job.artifacts / f"{job.name}.attempts"
    config.write_text(job.config.model_dump_json(by_alias=True, exclude_none=True))
    command = [str(job.python), str(Path(__file__).with_name("interruptions.py")), str(REPOSITORY / "trainer_image")]
    command += [str(config), str(job.artifacts), str(kills), "20261121", str(report)]
    environment = environment_of_images() | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=800)
    stories: list[dict[str, Any]] = json.loads(report.read_text())
    return stories


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate_json(Path(job.paths.result).read_bytes())


def step_of(checkpoint: str | None) -> int:
    return int(checkpoint.removeprefix("checkpoint-")) if checkpoint else 0


@pytest.fixture(scope="module")
def unbroken(job: MakeJob, conversations: Rows) -> tuple[Job, dict[str, float]]:
    """A job that nothing interrupts, and its loss at each step."""
    alone = job("unbroken", conversations, **TRAINING)
    (story,) = attempts_at(alone, kills=0)
    assert story["exit_code"] == 0, story["tail"]
    assert len(story["losses"]) == STEPS
    return alone, story["losses"]


@pytest.fixture(scope="module")
def broken(job: MakeJob, conversations: Rows) -> tuple[Job, list[dict[str, Any]]]:
    """The same job, killed at random moments."""
    killed = job("killed", conversations, **TRAINING)
    return killed, attempts_at(killed, KILLS)


def test_a_training_killed_at_fifty_random_moments_ends_as_if_nothing_had_been(
    unbroken: tuple[Job, dict[str, float]], broken: tuple[Job, list[dict[str, Any]]]
) -> None:
    stories = broken[1]
    assert [story["end"] for story in stories[:-1]].count("killed in a save") >= KILLS // 5
    assert all(story["end"].startswith("killed") for story in stories[:-1])
    assert len(stories) == KILLS + 1
    assert stories[-1]["exit_code"] == 0, stories[-1]["tail"]

    expected, found = result_of(unbroken[0]), result_of(broken[0])
    assert found.steps == expected.steps == STEPS
    assert found.final_loss == pytest.approx(expected.final_loss, abs=1e-3)
    assert found.test_loss == pytest.approx(expected.test_loss, abs=1e-3)
    assert found.tokens == expected.tokens


def test_every_attempt_is_on_the_same_loss_curve(
    unbroken: tuple[Job, dict[str, float]], broken: tuple[Job, list[dict[str, Any]]]
) -> None:
    for number, story in enumerate(broken[1]):
        expected = {step: unbroken[1][step] for step in story["losses"]}
        assert story["losses"] == pytest.approx(expected, abs=1e-3), f"attempt {number} from {story['resumed_from']}"


def test_no_kill_costs_more_than_a_save_interval(broken: tuple[Job, list[dict[str, Any]]]) -> None:
    stories = broken[1]
    for before, after in pairwise(stories):
        done = max(map(int, before["losses"]), default=step_of(before["resumed_from"]))
        assert done - step_of(after["resumed_from"]) <= SAVE_STEPS


def test_torn_checkpoints_were_met_and_none_was_taken(broken: tuple[Job, list[dict[str, Any]]]) -> None:
    torn = [(story["not_whole"], story["resumed_from"]) for story in broken[1]]
    assert any(not_whole for not_whole, _ in torn)
    assert all(resumed_from not in not_whole for not_whole, resumed_from in torn)


def test_a_damaged_checkpoint_is_not_taken_but_the_one_before_it(ml_python: Path, tmp_path: Path) -> None:
    command = [str(ml_python), str(Path(__file__).with_name("damaged_checkpoints.py"))]
    command += [str(REPOSITORY / "trainer_image"), str(tmp_path)]
    subprocess.run(command, check=True, env=environment_of_images())
    taken = json.loads((tmp_path / "taken.json").read_text())

    whole = {"train_seconds": 1.5, "tokens": 100}
    assert taken.pop("none") == whole | {"step": 10, "left": ["checkpoint-10", "checkpoint-5"]}
    assert len(taken) == 8
    assert taken == dict.fromkeys(taken, whole | {"step": 5, "left": ["checkpoint-5"]})


def test_two_attempts_that_start_at_once_make_one_adapter(job: MakeJob, conversations: Rows) -> None:
    doubled = job("at-once", conversations, epochs=4)
    both = [doubled.start("--lock-wait-seconds", "0") for _ in range(2)]

    assert sorted(attempt.exit_code() for attempt in both) == [0, EXIT_LOCKED]
    assert sum(bool(attempt.lines("training")) for attempt in both) == 1
    directory = Path(doubled.paths.directory)
    assert [path.name for path in directory.iterdir() if "adapter" in path.name] == ["adapter"]
