"""spec.training, spec.reportTo and spec.initFrom on their way to the trainer and to the version's lineage."""

from typing import Any

import pytest

from finetune_operator.contract.training import EarlyStopping, StartingAdapter, TrainingParameters
from finetune_operator.manifests.training import training_config, training_job
from finetune_operator.manifests.training_parameters import scheduler_name, training_parameters
from finetune_operator.manifests.versions import model_version
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.resources.training import LrScheduler, Training
from tests.builders import CONFIG, DIGEST, make_job, make_result
from tests.golden_files import assert_golden

KNOBS: dict[str, Any] = {
    "packing": True,
    "evalSteps": 25,
    "earlyStopping": {"patience": 2, "minDelta": "0.01"},
    "lrScheduler": "CosineWithRestarts",
    "warmupRatio": "0.1",
    "optimizer": "adamw_8bit",
    "weightDecay": "0.01",
    "maxGradNorm": "0.3",
    "neftuneNoiseAlpha": "5",
    "arguments": {"adam_beta2": "0.98", "lr_scheduler_kwargs": '{"num_cycles": 2}'},
}
TRACKERS: dict[str, Any] = {
    "tensorBoard": True,
    "mlflow": {
        "trackingUri": "https://mlflow.example.com",
        "tokenSecretRef": {"name": "trackers", "key": "mlflow-token"},
    },
    "wandb": {"project": "plato", "apiKeySecretRef": {"name": "trackers", "key": "wandb-key"}},
}
JOB = make_job({"training": KNOBS, "reportTo": TRACKERS, "initFrom": {"modelVersion": "plato-v1"}})
START = StartingAdapter(model_version="plato-v1", path="/artifacts/finetune/plato/uid/adapter", digest=DIGEST)


def test_a_job_with_every_knob_as_reviewed() -> None:
    assert_golden("job-with-every-knob", [training_job(JOB, CONFIG, START)])


def test_its_version_as_reviewed() -> None:
    result = make_result(init_from=START)
    body = model_version(JOB, 2, "volume://artifacts/a/b/c/adapter", result, training_config(JOB, CONFIG), "trainer")
    assert_golden("modelversion-with-every-knob", [body])
    parsed = ModelVersion.parse(body | {"metadata": body["metadata"] | {"uid": "uid-of-v2"}})
    assert parsed.spec.lineage.init_from is not None
    assert (parsed.spec.lineage.init_from.model_version, parsed.spec.lineage.init_from.digest) == ("plato-v1", DIGEST)


def test_knobs_become_numbers_and_names_of_transformers() -> None:
    parameters = training_parameters(JOB.spec.training)
    assert parameters.early_stopping == EarlyStopping(patience=2, min_delta=0.01)
    assert parameters.lr_scheduler == "cosine_with_restarts"
    assert (parameters.warmup_ratio, parameters.weight_decay, parameters.max_grad_norm) == (0.1, 0.01, 0.3)


def test_defaults_of_resource_and_trainer_are_the_same() -> None:
    assert training_parameters(Training()) == TrainingParameters()


@pytest.mark.parametrize("scheduler", LrScheduler)
def test_every_scheduler_has_a_name_of_lower_case_words(scheduler: LrScheduler) -> None:
    assert scheduler_name(scheduler).replace("_", "") == scheduler.value.lower()


def test_keys_of_trackers_are_nowhere_but_in_references_to_secrets() -> None:
    (trainer,) = training_job(JOB, CONFIG)["spec"]["template"]["spec"]["containers"]
    references = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in trainer["env"]
        if variable["name"] in ("MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY")
    }
    assert references == {
        "MLFLOW_TRACKING_TOKEN": {"name": "trackers", "key": "mlflow-token"},
        "WANDB_API_KEY": {"name": "trackers", "key": "wandb-key"},
    }
    assert "trackers" not in training_config(JOB, CONFIG).model_dump_json()


def test_the_lineage_has_each_knob_within_its_bounds() -> None:
    full = JOB.spec.training.model_copy(update={"arguments": {f"a{number}": "x" * 256 for number in range(24)}})
    job = JOB.model_copy(update={"spec": JOB.spec.model_copy(update={"training": full})})
    body = model_version(job, 1, "volume://a/b/adapter", make_result(), training_config(job, CONFIG), "trainer")
    values = body["spec"]["lineage"]["hyperparameters"]
    assert values["earlyStopping.patience"] == "2"
    assert len([name for name in values if name.startswith("arguments.")]) == 24
    assert len(values) <= 64
    assert all(len(value) <= 256 for value in values.values())
