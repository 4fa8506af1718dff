"""spec.training.arguments: which of TRL's arguments a user may set, with which types, and why not the others."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.images.ml_environment import REPOSITORY
from tests.images.training import environment_of_images

TAKEN: tuple[tuple[str, str, str, Any], ...] = (
    ("SFT", "adam_beta2", "0.98", 0.98),
    ("SFT", "logging_steps", "5", 5.0),
    ("SFT", "logging_first_step", "true", True),
    ("SFT", "data_seed", "7", 7),
    ("SFT", "data_seed", "null", None),
    ("SFT", "lr_scheduler_kwargs", '{"num_cycles": 2}', {"num_cycles": 2}),
    ("SFT", "optim_args", "betas=0.9", "betas=0.9"),
    ("SFT", "loss_type", "dft", "dft"),
    ("DPO", "loss_type", "ipo", ["ipo"]),
    ("DPO", "loss_type", '["sigmoid", "sft"]', ["sigmoid", "sft"]),
    ("DPO", "label_smoothing", "0.1", 0.1),
)
ELSEWHERE = {
    "learning_rate": "spec.training.learningRate",
    "num_train_epochs": "spec.training.epochs",
    "per_device_train_batch_size": "spec.training.batchSize",
    "max_length": "spec.training.maxSeqLength",
    "optim": "spec.training.optimizer",
    "warmup_steps": "spec.training.warmupSteps or warmupRatio",
    "eval_strategy": "spec.training.evalSteps",
    "load_best_model_at_end": "spec.training.earlyStopping",
    "report_to": "spec.reportTo",
    "run_name": "the job's own name",
}
DANGEROUS = (
    "output_dir", "push_to_hub", "hub_model_id", "hub_token", "hub_always_push", "trackio_space_id", "deepspeed",
    "fsdp", "fsdp_config", "accelerator_config", "parallelism_config", "ddp_backend", "trust_remote_code",
    "model_init_kwargs", "chat_template_path", "dataset_kwargs", "resume_from_checkpoint", "save_only_model",
    "save_total_limit", "save_strategy", "ignore_data_skip", "local_rank",
)  # fmt: skip
WRONG = {
    ("SFT", "no_such_argument", "1"): "TRL knows no argument no_such_argument",
    ("SFT", "label_smoothing", "0.1"): "TRL knows no argument label_smoothing",
    ("DPO", "assistant_only_loss", "true"): "TRL knows no argument assistant_only_loss",
    ("SFT", "__class__", "1"): "TRL knows no argument __class__",
    ("SFT", "adam_beta2", "much"): "'much', which is no float",
    ("SFT", "adam_beta2", "nan"): "'nan', which is no finite number",
    ("SFT", "logging_first_step", "perhaps"): "'perhaps', which is no bool",
    ("SFT", "data_seed", "1.5"): "'1.5', which is no int | None",
    ("SFT", "lr_scheduler_kwargs", '{"num_cycles": '): "lr_scheduler_kwargs",
    ("SFT", "loss_type", "mse"): "not one of nll, dft",
}
REFUSED = (
    [(("SFT", name, "1"), f"argument {name} is set by {where}") for name, where in ELSEWHERE.items()]
    + [(("SFT", name, "1"), f"argument {name} is refused") for name in DANGEROUS]
    + list(WRONG.items())
)


@pytest.fixture(scope="module")
def told(ml_python: Path) -> dict[str, Any]:
    """What the trainer makes of all of them."""
    cases = [case[:3] for case in TAKEN] + [case for case, _ in REFUSED]
    command = [str(ml_python), str(Path(__file__).with_name("parsed_arguments.py")), str(REPOSITORY / "trainer_image")]
    options: dict[str, Any] = {"check": True, "env": environment_of_images(), "text": True}
    done = subprocess.run(command, input=json.dumps(cases), stdout=subprocess.PIPE, **options)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    outcomes = answer.pop("outcomes")
    return answer | {"taken": outcomes[: len(TAKEN)], "refused": outcomes[len(TAKEN) :]}


@pytest.mark.parametrize("number", range(len(TAKEN)), ids=[f"{case[1]}={case[2]}" for case in TAKEN])
def test_an_argument_gets_the_type_that_trl_gives_it(told: dict[str, Any], number: int) -> None:
    assert told["taken"][number] == {"value": TAKEN[number][3]}


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=["-".join(case) for case, _ in REFUSED])
def test_an_argument_that_can_not_be_taken_is_named_with_the_reason(told: dict[str, Any], number: int) -> None:
    case, reason = REFUSED[number]
    assert reason in told["refused"][number]["message"]
    assert "spec.training.arguments" in told["refused"][number]["remedy"]
    assert case[1] in told["refused"][number]["message"] + told["refused"][number]["remedy"]


def test_every_entry_of_the_tables_is_an_argument_of_this_release_of_trl(told: dict[str, Any]) -> None:
    assert told["unmatched"] == []
