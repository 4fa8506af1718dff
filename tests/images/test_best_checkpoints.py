"""Which state early stopping publishes, also where the best one is lost, and when it stops."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.images.ml_environment import REPOSITORY
from tests.images.training import environment_of_images


@pytest.fixture(scope="module")
def found(ml_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("best-checkpoints")
    script = Path(__file__).with_name("best_checkpoints.py")
    command = [str(ml_python), str(script), str(REPOSITORY / "trainer_image"), str(directory)]
    subprocess.run(command, check=True, env=environment_of_images(), timeout=300)
    answer: dict[str, Any] = json.loads((directory / "found.json").read_text())
    return answer


BEST = {"steps": 6, "weight": 0.7, "lost": None}
"""Step 3 of 6: the three after it are worse."""


@pytest.mark.parametrize("name", ["the best is whole", "resumed", "resumed, and measured at its start"])
def test_the_best_state_is_published_however_often_the_training_was_interrupted(
    found: dict[str, Any], name: str
) -> None:
    assert found[name] == BEST


@pytest.mark.parametrize(
    ("name", "step", "weight", "loss"),
    [("the best is damaged", 5, 0.5, 0.2), ("the best is gone", 4, 0.6, 0.1)],
    ids=["damaged, kept beside the newest two", "gone, so that the newest three were kept"],
)
def test_where_the_best_is_lost_the_best_of_the_others_is_published_and_said_to_be_so(
    found: dict[str, Any], name: str, step: int, weight: float, loss: float
) -> None:
    outcome, lost = found[name], found[name]["lost"]

    assert (outcome["steps"], outcome["weight"]) == (6, weight)
    assert (lost["step"], lost["published_step"]) == (3, step)
    assert (lost["eval_loss"], lost["published_eval_loss"]) == (
        pytest.approx(0, abs=1e-4),
        pytest.approx(loss, abs=1e-4),
    )


def test_where_all_are_lost_the_last_state_is_published_and_said_to_be_so(found: dict[str, Any]) -> None:
    outcome, lost = found["all are damaged"], found["all are damaged"]["lost"]

    assert (outcome["steps"], outcome["weight"]) == (6, 0.4)
    assert (lost["step"], lost["published_step"], lost["published_eval_loss"]) == (3, 6, pytest.approx(0.3, abs=1e-4))


def test_the_model_before_its_first_step_is_no_state_to_publish(found: dict[str, Any]) -> None:
    """Step 1 is the best that has a checkpoint, and three worse ones follow."""
    assert found["measured at its start, too"] == {"steps": 4, "weight": 0.9, "lost": None}
