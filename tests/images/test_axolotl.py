"""What `axolotl-config` prints is asked of Axolotl itself: its schema and its reader of preferences, of its image."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.core.axolotl import Places, axolotl
from finetune_operator.manifests.training import training_config
from local_cluster.layout import cache_root
from tests.builders import CONFIG, make_job
from tests.images.ml_environment import REPOSITORY

SPECS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "8 bit": {"training": {"quantization": "8bit"}},
    "no quantization": {"training": {"quantization": "none", "gradientCheckpointing": False}},
    "preferences": {"method": "DPO", "training": {"dpoBeta": "0.2"}},
    "packed": {"training": {"packing": True}},
    "no held-out rows": {"dataset": {"testFraction": "0"}},
    "a hub's revision": {"baseModel": {"source": {"volume": None, "hub": {"id": "a/b", "revision": "v1"}}}},
    "every knob": {
        "lora": {"r": 8, "alpha": 16, "dropout": "0", "targetModules": ["q_proj", "v_proj"]},
        "training": {
            "epochs": 2,
            "maxSteps": 100,
            "batchSize": 2,
            "gradientAccumulationSteps": 8,
            "learningRate": "5e-5",
            "lrScheduler": "Cosine",
            "warmupRatio": "0.1",
            "optimizer": "adamw_8bit",
            "weightDecay": "0.01",
            "maxGradNorm": "0.5",
            "neftuneNoiseAlpha": "5",
            "evalSteps": 10,
            "earlyStopping": {"patience": 3},
            "saveSteps": 20,
            "seed": 7,
        },
    },
}
SCHEDULERS = ("Linear", "Cosine", "CosineWithRestarts", "Polynomial", "Constant", "ConstantWithWarmup", "InverseSqrt")
ROW = {
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    "chosen": [{"role": "assistant", "content": "Because."}],
    "rejected": [{"role": "assistant", "content": "No idea."}],
}


def config_of(spec: dict[str, Any]) -> dict[str, Any]:
    return axolotl(training_config(make_job(spec), CONFIG), Places("a/b", "dataset", "out")).config


@pytest.fixture(scope="module")
def said(axolotl_python: Path) -> dict[str, Any]:
    """Axolotl's verdicts, asked once, since its imports take seconds."""
    configs = {name: config_of(spec) for name, spec in SPECS.items()}
    configs |= {name: config_of({"training": {"lrScheduler": name}}) for name in SCHEDULERS}
    configs["a wrong word"] = configs["defaults"] | {"learnig_rate": 1}
    configs["a contradiction"] = configs["defaults"] | {"load_in_8bit": True}
    asked = {"configs": configs, "preferences": configs["preferences"], "row": ROW}
    done = subprocess.run(
        [str(axolotl_python), str(REPOSITORY / "tests" / "images" / "axolotl_schema.py")],
        input=json.dumps(asked),
        env={"PATH": "/usr/bin:/bin", "HOME": str(cache_root()), "AXOLOTL_DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("name", [*SPECS, *SCHEDULERS])
def test_axolotl_takes(said: dict[str, Any], name: str) -> None:
    assert said["verdicts"][name] == ""


def test_axolotl_would_have_refused(said: dict[str, Any]) -> None:
    assert "learnig_rate" in said["verdicts"]["a wrong word"]
    assert "qlora in 8bit" in said["verdicts"]["a contradiction"]


def test_axolotl_finds_question_and_answers_in_a_pair(said: dict[str, Any]) -> None:
    assert said["pair"] == {"prompt": "<system>Be brief.<user>Why?", "chosen": "Because.", "rejected": "No idea."}
