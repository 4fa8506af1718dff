"""The trainer's attention over packed rows, against SDPA with a mask of the whole row and each conversation alone."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.images.training import environment_of_images

# of five conversations: how many blocks they are attended to in, and how many of these need a mask
BLOCKS = {
    "each by itself": (5, 0),
    "neighbours together": (2, 1),
    "recomputed in the backward pass": (5, 0),
    "in a window": (5, 2),
}


@pytest.fixture(scope="module")
def compared(ml_python: Path) -> dict[str, dict[str, float]]:
    command = [str(ml_python), str(Path(__file__).with_name("packed_models.py"))]
    done = subprocess.run(command, env=environment_of_images(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cases: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return cases


@pytest.mark.parametrize("case", BLOCKS)
def test_a_packed_conversation_is_as_it_is_alone(compared: dict[str, dict[str, float]], case: str) -> None:
    found = compared[case]
    assert (found["blocks"], found["masks"]) == BLOCKS[case]
    for measure in ("alone", "dense", "gradients"):
        assert found[measure] < 1e-4, measure
