"""A FineTuneJob as Axolotl's config. Whether Axolotl takes it is asked of its own schema in tests/images."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.__main__ import main
from finetune_operator.core.axolotl import Places, axolotl
from finetune_operator.manifests.training import training_config
from tests.builders import CONFIG, make_job

EXAMPLES = Path(__file__).parents[3] / "examples"
HERE = Places("Qwen/Qwen3-0.6B", "dataset", "out")
HUB = {"baseModel": {"source": {"volume": None, "hub": {"id": "Qwen/Qwen3-0.6B", "revision": "v1"}}}}


def rendered(spec: dict[str, Any]) -> dict[str, Any]:
    return axolotl(training_config(make_job(spec), CONFIG), HERE).config


@pytest.mark.parametrize(
    ("title", "spec", "wanted"),
    [
        ("4 bit is QLoRA", {}, {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": False}),
        ("8 bit", {"training": {"quantization": "8bit"}}, {"adapter": "lora", "load_in_8bit": True}),
        ("no quantization", {"training": {"quantization": "none"}}, {"adapter": "lora", "load_in_4bit": False}),
        ("the adapter", {"lora": {"r": 8, "alpha": 16, "dropout": "0.1", "targetModules": ["q_proj"]}},
         {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "lora_target_modules": ["q_proj"]}),
        ("the training", {"training": {"epochs": 2, "batchSize": 3, "gradientAccumulationSteps": 5, "seed": 7}},
         {"num_epochs": 2, "micro_batch_size": 3, "gradient_accumulation_steps": 5, "seed": 7}),
        ("the learning rate", {"training": {"learningRate": "5e-5", "warmupSteps": 9}},
         {"learning_rate": 5e-5, "warmup_steps": 9, "lr_scheduler": "linear"}),
        ("steps", {"training": {"maxSteps": 11, "saveSteps": 4}}, {"max_steps": 11, "save_steps": 4}),
        ("packing needs attention that keeps rows apart", {"training": {"packing": True}},
         {"sample_packing": True, "attn_implementation": "flash_attention_2"}),
        ("early stopping looks when it saves", {"training": {"earlyStopping": {"patience": 3}, "saveSteps": 6}},
         {"early_stopping_patience": 3, "eval_steps": 6, "save_steps": 6}),
        ("a revision of the hub", HUB, {"revision_of_model": "v1"}),
        ("preferences", {"method": "DPO", "training": {"dpoBeta": "0.3"}}, {"rl": "dpo", "rl_beta": 0.3}),
        ("our own held-out rows", {}, {"val_set_size": 0, "test_datasets": [{"path": "dataset/test.jsonl",
         "ds_type": "json", "split": "train", "type": "chat_template", "field_messages": "messages"}]}),
    ],
)  # fmt: skip
def test_each_setting_has_its_word(title: str, spec: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = rendered(spec)

    assert {key: found.get(key) for key in wanted} == wanted, title


def test_without_held_out_rows_there_is_no_test_file() -> None:
    assert "test_datasets" not in rendered({"dataset": {"testFraction": "0"}})


def test_what_axolotl_has_no_word_for_is_named() -> None:
    spec = {"evaluation": {"metrics": ["F1"]}, "training": {"arguments": {"adam_beta2": "0.98"}}}

    left_out = axolotl(training_config(make_job(spec), CONFIG), HERE).left_out

    assert left_out == ("spec.evaluation", "spec.training.arguments")


def test_the_command_prints_an_example_with_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(EXAMPLES / "finetunejob-sft.yaml")

    assert main(["axolotl-config", file, "--base-model", "/models/tiny-llama"]) == 0

    text = capsys.readouterr().out
    assert "# not carried over: spec.evaluation\n" in text
    config = yaml.safe_load(text)
    assert (config["base_model"], config["num_epochs"], config["adapter"]) == ("/models/tiny-llama", 20, "lora")


def test_the_command_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "stdin"
    file.write_text((EXAMPLES / "gpu" / "finetunejob.yaml").read_text())
    monkeypatch.setattr("builtins.open", lambda name, **_: io.StringIO(file.read_text()))

    assert main(["axolotl-config", "-"]) == 0

    assert yaml.safe_load(capsys.readouterr().out)["base_model"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetunejob-sft.yaml"], "--base-model"),
        (["finetunejob-openai.yaml"], "trains at its provider"),
        (["abtest.yaml"], "0 FineTuneJobs"),
        (["nothing.yaml"], "No such file"),
    ],
)
def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(["axolotl-config", str(EXAMPLES / arguments[0])]) == 1

    assert said in capsys.readouterr().err


def test_the_command_names_the_start_and_the_outputs_that_are_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    body = yaml.safe_load((EXAMPLES / "finetunejob-onward.yaml").read_text())
    body["spec"]["outputs"] = ["UnslothScript"]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(body))

    assert main(["axolotl-config", str(file), "--base-model", "/models/tiny-llama"]) == 0

    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    names = ("spec.outputs", "spec.initFrom", "spec.reportTo", "spec.training.arguments")
    assert told == [f"# not carried over: {name}" for name in names]
