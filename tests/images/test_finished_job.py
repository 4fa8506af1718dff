"""An attempt at a job that is done, on the trainer's own module: it takes the result and what the dead one left."""

import importlib
from argparse import Namespace
from pathlib import Path

import pytest

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from tests.builders import make_result
from tests.images.ml_environment import REPOSITORY


def test_checkpoints_do_not_outlive_an_attempt_that_died_while_it_removed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "trainer_image"))
    train = importlib.import_module("train")
    monkeypatch.setattr(train, "keep_log", lambda file, attempt, *, crashes_only: None)
    config = TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato-1", uid="uid"),
        model="plato",
        method="SFT",
        backend="Unsloth",
        base_model_name="base",
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(),
    )
    paths = JobPaths.of(config, str(tmp_path / "artifacts"))
    for file in (paths.adapter / "manifest.json", paths.checkpoints / "checkpoint-5" / "optimizer.pt", paths.trained):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    result = make_result()
    Path(paths.result).write_text(result.model_dump_json(by_alias=True))
    (tmp_path / "training.json").write_text(config.model_dump_json(by_alias=True))
    arguments = Namespace(
        config=tmp_path / "training.json",
        artifacts=tmp_path / "artifacts",
        termination_message=tmp_path / "termination-log",
        lock_wait_seconds=0.0,
    )

    assert train.run(arguments, termination=None, group=train.ProcessGroup()) == result

    left = {path.name for path in Path(paths.directory).iterdir()}
    assert left == {"adapter", "lock", "result.json"}
