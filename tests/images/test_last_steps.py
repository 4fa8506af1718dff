"""An attempt that resumes where the training had come to its end trains nothing more."""

import json
import subprocess
from pathlib import Path

from tests.images.ml_environment import REPOSITORY
from tests.images.training import environment_of_images


def test_an_attempt_that_resumes_at_the_end_trains_no_step_more(ml_python: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("last_steps.py")
    command = [str(ml_python), str(script), str(REPOSITORY / "trainer_image"), str(tmp_path)]

    subprocess.run(command, check=True, env=environment_of_images(), timeout=300)

    attempts = json.loads((tmp_path / "found.json").read_text())
    assert {name: first["steps"] for name, (first, _) in attempts.items()} == {
        "maxSteps in mid-epoch": 3,
        "epochs that end in mid-epoch": 3,
        "a whole epoch": 8,
        "early stopping": 3,
    }
    for name, (first, second) in attempts.items():
        assert second == first, name
