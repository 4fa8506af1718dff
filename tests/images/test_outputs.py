"""What a job makes of its adapter, and what it leaves: made for real, killed in the middle, and taken over."""

import hashlib
import json
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import ArtifactListing, ArtifactType, Output, WeightsManifest
from finetune_operator.contract.training import EarlyStopping, TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.core.merged_weights import ExpectedWeights, is_config, refuse_config, refuse_merged
from tests.images.ml_environment import REPOSITORY, ensure_converter
from tests.images.training import BASE_MODEL, Job, environment_of_images

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]

# Without GGUF, which needs a tokenizer that llama.cpp knows (test_gguf.py).
OUTPUTS = (Output.MERGED_WEIGHTS, Output.OLLAMA_MODELFILE, Output.UNSLOTH_SCRIPT)
COMPARE = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, merged = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(merged)
question = [{"role": "user", "content": "Do you feel pain?"}]
ids = tokenizer.apply_chat_template(
    question, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)["input_ids"]
def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits
alone = logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
adapted = logits(PeftModel.from_pretrained(model, adapter))
both = logits(AutoModelForCausalLM.from_pretrained(merged))
print(json.dumps({
    "dtype": str(both.dtype),
    "merged_from_adapted": float((both - adapted).abs().max()),
    "adapted_from_base": float((adapted - alone).abs().max()),
}))
"""
# vLLM is in the images' common layer, and Unsloth would load it; see trainer_image/peft_models.py.
RUN_SCRIPT = """
import runpy, sys
sys.modules["vllm"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(job: MakeJob, conversations: Rows) -> Job:
    """All outputs; the first attempt was killed while it merged."""
    done = job("exported", conversations, epochs=2, outputs=OUTPUTS)
    first = done.start()
    first.wait_for("merging", timeout_seconds=240)
    first.signal(signal.SIGKILL)
    done.run()
    return done


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate(job.outcome())


def last_json(python: Path, code: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment_of_images()
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def shapes(adapter: Path) -> dict[str, list[int]]:
    """By the header of the safetensors file: its length in eight bytes, then JSON."""
    content = (adapter / "adapter_model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def test_an_attempt_that_dies_while_it_exports_is_followed_by_one_that_only_exports(exported: Job) -> None:
    first, second = exported.attempts

    assert first.lines("training")
    assert second.lines("training") == []
    assert [line["output"] for line in second.lines("made")] == list(OUTPUTS)
    assert result_of(exported).output_errors == ()
    left = {path.name for path in Path(exported.paths.directory).iterdir()}
    made = {"Modelfile", "merged", "train_unsloth.py"}
    assert left == {"adapter", "artifacts.json", "dataset", "lock", "result.json", "train.log"} | made


def test_merged_weights_answer_as_the_adapter_on_its_base(exported: Job, ml_python: Path) -> None:
    places = (exported.base_model, exported.adapter, exported.paths.merged)

    found = last_json(ml_python, COMPARE, *map(str, places))

    assert found["dtype"] == "torch.float32"
    assert found["merged_from_adapted"] < 1e-4
    assert found["adapted_from_base"] > 0.01


def test_merged_weights_have_a_manifest_whose_digest_the_result_tells(exported: Job) -> None:
    merged, result = Path(exported.paths.merged), result_of(exported)
    manifest = WeightsManifest.model_validate_json((merged / MANIFEST_NAME).read_bytes())

    assert {file.name: file for file in manifest.files} == {file.name: file for file in hashes_of(merged)}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in manifest.files}
    assert (manifest.base_model_name, manifest.adapter_digest) == (BASE_MODEL, result.adapter_digest)
    expected = ExpectedWeights(str(result.merged_digest), BASE_MODEL, str(result.adapter_digest))
    assert refuse_merged(manifest, manifest.files, expected) is None


def test_what_kills_the_conversion_does_not_lose_the_merged_weights(job: MakeJob, conversations: Rows) -> None:
    outputs = (Output.MERGED_WEIGHTS, Output.GGUF_Q8)
    killed = job("killed-converting", conversations, max_steps=1, outputs=outputs)
    killed.environment["LLAMA_CPP_DIRECTORY"] = str(ensure_converter())
    first = killed.start()
    first.wait_for("converting", timeout_seconds=240)
    first.signal(signal.SIGKILL)

    told = result_of(killed)
    manifest = WeightsManifest.model_validate_json((Path(killed.paths.merged) / MANIFEST_NAME).read_bytes())
    assert told.merged_digest == manifest.digest
    assert [error.output for error in told.output_errors] == [Output.GGUF_Q8]


def test_merging_writes_the_manifest_itself_and_names_no_code(exported: Job, ml_python: Path, tmp_path: Path) -> None:
    """Within the time that a tool has; and whatever the base model names, a server takes what is merged."""
    base, merged = tmp_path / "base", tmp_path / "merged"
    shutil.copytree(exported.base_model, base)
    code = {"auto_map": {"AutoConfig": "c.C", "AutoTokenizer": ["t.T", None]}}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        config = json.loads((base / name).read_bytes()) if (base / name).exists() else {}
        (base / name).write_text(json.dumps(config | code | {"vision": [code]}))
    command = [str(ml_python), str(REPOSITORY / "trainer_image" / "merge.py"), "--base", str(base)]
    command += ["--adapter", str(exported.adapter), "--output", str(merged), "--dtype", "float32"]
    command += ["--base-model-name", BASE_MODEL, "--adapter-digest", "sha256:adapter"]

    subprocess.run(command, capture_output=True, check=True, env=environment_of_images())

    manifest = WeightsManifest.model_validate_json((merged / MANIFEST_NAME).read_bytes())
    expected = ExpectedWeights(manifest.digest, BASE_MODEL, "sha256:adapter")
    assert refuse_merged(manifest, hashes_of(merged), expected) is None
    configs = [path for path in merged.iterdir() if is_config(path.name)]
    assert {"config.json", "tokenizer_config.json", "generation_config.json"} <= {path.name for path in configs}
    assert not [path.name for path in configs if refuse_config(path.name, json.loads(path.read_bytes()))]
    assert json.loads((merged / "config.json").read_bytes())["vision"] == [{}], "nothing else is lost"


def hashes_of(merged: Path) -> list[AdapterFile]:
    """Of all files but the manifest."""
    contents = {path.name: path.read_bytes() for path in merged.iterdir() if path.name != MANIFEST_NAME}
    return [
        AdapterFile(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    ]


def test_a_job_without_merged_weights_tells_no_digest_of_them(trained: Job) -> None:
    assert result_of(trained).merged_digest is None


def test_merging_beyond_its_memory_ends_alone(exported: Job, ml_python: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    command = [str(ml_python), str(REPOSITORY / "trainer_image" / "merge.py"), "--base", str(exported.base_model)]
    command += ["--adapter", str(exported.adapter), "--output", str(merged), "--memory-bytes", "1000000"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of_images())

    assert done.returncode not in (0, -signal.SIGKILL)
    assert not merged.exists()


def test_the_script_trains_the_same_adapter_without_the_operator(
    exported: Job, ml_python: Path, tmp_path: Path
) -> None:
    script = str(exported.paths.script)

    again = last_json(ml_python, RUN_SCRIPT, script, "--output", str(tmp_path))

    result = result_of(exported)
    assert again["steps"] == result.steps
    assert again["final_loss"] == pytest.approx(result.final_loss, rel=1e-4)
    assert shapes(tmp_path / "adapter") == shapes(exported.adapter)


def test_the_script_learns_the_same_preferences(
    job: MakeJob, preferences: Rows, ml_python: Path, tmp_path: Path
) -> None:
    stopping = EarlyStopping(patience=3)
    outputs = (Output.UNSLOTH_SCRIPT, Output.OLLAMA_MODELFILE)
    trained = job(
        "exported-dpo", preferences, method="DPO", epochs=1, save_steps=3, early_stopping=stopping, outputs=outputs
    )
    trained.run()

    again = last_json(ml_python, RUN_SCRIPT, str(trained.paths.script), "--output", str(tmp_path))

    result = result_of(trained)
    assert again["steps"] == result.steps
    assert again["final_loss"] == pytest.approx(result.final_loss, rel=1e-3)
    assert "ADAPTER ./adapter" in Path(trained.paths.modelfile).read_text().splitlines()


def test_the_modelfile_takes_the_merged_weights_and_writes_turns_as_the_chat_template(exported: Job) -> None:
    lines = Path(exported.paths.modelfile).read_text().splitlines()

    assert "FROM ./merged" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert 'TEMPLATE """{{ range .Messages }}{{ if eq .Role "user" }}<|im_start|>user' in lines


def test_the_listing_has_each_file_and_the_result_each_directory(exported: Job) -> None:
    directory = Path(exported.paths.directory)
    listing = ArtifactListing.model_validate_json(Path(exported.paths.artifacts).read_bytes()).root

    sizes = {file.path: file.size_bytes for file in listing if file.type is not ArtifactType.LOG}
    assert sizes == {path: (directory / path).stat().st_size for path in sizes}
    told = {artifact.path: artifact for artifact in result_of(exported).artifacts}
    assert {path: artifact.type for path, artifact in told.items()} == {
        "Modelfile": "Modelfile",
        "adapter": "Adapter",
        "dataset": "Dataset",
        "merged": "MergedWeights",
        "train.log": "Log",
        "train_unsloth.py": "Script",
    }
    for name in ("adapter", "merged", "dataset"):
        assert told[name].size_bytes == sum(path.stat().st_size for path in (directory / name).iterdir())


def test_the_log_on_the_volume_has_all_attempts(exported: Job) -> None:
    lines = [json.loads(line) for line in Path(exported.paths.log).read_text().splitlines()]

    named = list(dict.fromkeys(line["attempt"] for line in lines))
    assert [next(line["message"] for line in lines if line["attempt"] == name) for name in named] == ["attempt"] * 2
    assert [line["step"] for line in lines if line["message"] == "step"][-1] == result_of(exported).steps
    assert lines[-1]["message"] == "done"
