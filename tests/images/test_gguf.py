"""Outputs for llama.cpp: made by its own converter, and read by its own reader."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune_operator.contract.artifacts import Output, WeightsManifest
from finetune_operator.contract.places import JobPaths
from finetune_operator.core.artifacts import MANIFEST_NAME
from tests.builders import make_result
from tests.images.ml_environment import REPOSITORY, ensure_converter
from tests.images.training import environment_of_images, exporting

# With the tokenizer of a model that everybody knows: the converter knows no other.
MAKE_MODEL = """
import shutil, sys
from pathlib import Path
import mistral_common, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

base, adapter = map(Path, sys.argv[1:])
raw = base.with_name("tokenizer")
raw.mkdir()
shutil.copy(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1", raw / "tokenizer.model")
(raw / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages }}"}')
tokenizer = AutoTokenizer.from_pretrained(raw)
tokenizer.save_pretrained(base)
shutil.copy(raw / "tokenizer.model", base)
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128,
))
model.save_pretrained(base)
get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)).save_pretrained(adapter)
"""
MAKE_ADAPTER = """
import sys
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
base, adapter = sys.argv[1:]
get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4)).save_pretrained(adapter)
"""
MAKE_OUTPUTS = """
import sys
sys.path.insert(0, sys.argv[1])
from exports import make_outputs
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig, TrainingResult
config = TrainingConfig.model_validate_json(sys.argv[2])
trained = TrainingResult.model_validate_json(sys.argv[4])
for error in make_outputs(config, JobPaths.of(config, sys.argv[3]), trained):
    print("error", error.message)
"""
READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file

SAME = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "model.layers.1.mlp.down_proj.weight": "blk.1.ffn_down.weight",
    "lm_head.weight": "output.weight",
}
file, weights = sys.argv[2:]
reader, expected = GGUFReader(file), load_file(weights)
found = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
off = {name: float(numpy.abs(found[theirs] - expected[name]).max() / numpy.abs(expected[name]).max())
       for name, theirs in SAME.items()}
fields = {name: reader.fields[name].contents() for name in
          ("general.architecture", "tokenizer.ggml.model", "tokenizer.chat_template", "llama.context_length")}
print(json.dumps({"off": off, "fields": fields, "tensors": len(found)}))
"""
FIELDS = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "llama",
    "tokenizer.chat_template": "{{ messages }}",
    "llama.context_length": 128,
}


class Exported(NamedTuple):
    """What `make_outputs` left and said."""

    paths: JobPaths
    said: str


def run(python: Path, code: str, *arguments: str) -> str:
    environment = environment_of_images() | {"LLAMA_CPP_DIRECTORY": str(ensure_converter())}
    done = subprocess.run(
        [str(python), "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def export(python: Path, base: Path, adapter: Path, root: Path, *outputs: Output) -> Exported:
    config = exporting(base, *outputs)
    paths = JobPaths.of(config, str(root))
    Path(paths.directory).mkdir(parents=True)
    Path(paths.adapter).symlink_to(adapter)
    config_json = config.model_dump_json(by_alias=True, exclude_none=True)
    trainer, trained = str(REPOSITORY / "trainer_image"), make_result().model_dump_json(by_alias=True)
    return Exported(paths, run(python, MAKE_OUTPUTS, trainer, config_json, str(root), trained))


@pytest.fixture(scope="module")
def known(ml_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Base model and adapter."""
    directory = tmp_path_factory.mktemp("known")
    base, adapter = directory / "base", directory / "adapter"
    run(ml_python, MAKE_MODEL, str(base), str(adapter))
    return base, adapter


@pytest.fixture(scope="module")
def exported(known: tuple[Path, Path], ml_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    outputs = (Output.MERGED_WEIGHTS, Output.GGUF_F16, Output.GGUF_Q8)
    return export(ml_python, *known, tmp_path_factory.mktemp("artifacts"), *outputs)


def read(python: Path, file: Path, merged: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        run(python, READ, str(ensure_converter() / "gguf-py"), str(file), str(merged / "model.safetensors"))
    )
    return found


@pytest.mark.parametrize(("name", "off"), [("gguf_f16", 1e-3), ("gguf_q8", 1e-2)])
def test_the_file_has_the_merged_weights_in_its_precision(
    exported: Exported, ml_python: Path, name: str, off: float
) -> None:
    assert "error" not in exported.said

    found = read(ml_python, Path(getattr(exported.paths, name)), Path(exported.paths.merged))

    assert found["fields"] == FIELDS
    assert found["tensors"] == 2 * 9 + 3
    assert max(found["off"].values()) < off


def test_the_manifest_names_the_adapter_that_was_merged(exported: Exported) -> None:
    manifest = WeightsManifest.model_validate_json((Path(exported.paths.merged) / MANIFEST_NAME).read_bytes())

    assert manifest.adapter_digest == make_result().adapter_digest


def test_a_file_in_8_bit_is_about_half_as_large(exported: Exported) -> None:
    small, large = (Path(path).stat().st_size for path in (exported.paths.gguf_q8, exported.paths.gguf_f16))
    assert small < 0.65 * large


def test_without_merged_weights_among_the_outputs_none_are_left(
    known: tuple[Path, Path], ml_python: Path, tmp_path: Path
) -> None:
    alone = export(ml_python, *known, tmp_path, Output.GGUF_Q8)

    assert "error" not in alone.said
    assert {path.name for path in Path(alone.paths.directory).iterdir()} == {"adapter", "model-q8_0.gguf"}


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(
    base_model: Path, ml_python: Path, tmp_path: Path, known: tuple[Path, Path]
) -> None:
    """The tests' own base model has one."""
    adapter = tmp_path / "adapter"
    run(ml_python, MAKE_ADAPTER, str(base_model), str(adapter))

    refused = export(ml_python, base_model, adapter, tmp_path / "artifacts", Output.GGUF_Q8)

    assert "error converting to GGUF ended with 1: NotImplementedError: BPE pre-tokenizer was not" in refused.said
    assert {path.name for path in Path(refused.paths.directory).iterdir()} == {"adapter"}
