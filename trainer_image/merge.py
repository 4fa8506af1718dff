"""Merge a published adapter into its base model, in full precision, as a model that needs no adapter.

    python merge.py --base /models/llama --adapter adapter --output merged --dtype bfloat16 \\
        [--base-model-name llama --adapter-digest sha256:...]

The base model is loaded without quantization, whatever it was trained with: the adapter is added to the weights
themselves, not to their 4-bit approximation. On the CPU, since the GPU may be full of the training. What is to be
served gets a manifest, last of all, which tells what it was merged of: the caller bounds the time of hashing, too.
"""

import argparse
import json
import resource
import sys
from pathlib import Path

import durable
from child import subordinate
from publish import hashed_files

from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.core.merged_weights import is_config, weights_manifest, without_code


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="directory of the base model")
    parser.add_argument("--adapter", type=Path, required=True, help="directory of the adapter")
    parser.add_argument("--output", type=Path, required=True, help="directory of the merged model; must not exist")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--base-model-name", help="with --adapter-digest: write a manifest, for a server")
    parser.add_argument("--adapter-digest", help="of the adapter's own manifest")
    parser.add_argument("--memory-bytes", type=int, help="fail beyond it, before the kernel kills the whole container")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="however it ends: its successor writes to the same directory"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.output.exists():
        sys.exit(f"{arguments.output} exists: name another directory")
    if arguments.die_with_parent:
        subordinate()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if arguments.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory_bytes, arguments.memory_bytes))
    dtype = getattr(torch, arguments.dtype)
    base = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=dtype, device_map="cpu", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base, local_files_only=True)
    # `safe_merge` refuses an adapter that makes weights infinite or no numbers.
    model = PeftModel.from_pretrained(base, arguments.adapter, torch_device="cpu").merge_and_unload(safe_merge=True)
    model.save_pretrained(arguments.output, max_shard_size="2GB")
    tokenizer.save_pretrained(arguments.output)
    remove_code(arguments.output)
    if arguments.base_model_name and arguments.adapter_digest:
        write_manifest(arguments.output, arguments.base_model_name, arguments.adapter_digest)


def remove_code(directory: Path) -> None:
    """Transformers' own classes have loaded it: code that a file names is not needed, and no server would take it."""
    for file in directory.iterdir():
        if is_config(file.name):
            config = json.loads(file.read_bytes())
            if (harmless := without_code(config)) != config:
                file.write_text(json.dumps(harmless, indent=2, ensure_ascii=False) + "\n")


def write_manifest(directory: Path, base_model_name: str, adapter_digest: str) -> None:
    """On the disk first: what is hashed from the cache alone may never get there."""
    for file in directory.iterdir():
        durable.sync(file)
    manifest = weights_manifest(base_model_name, adapter_digest, hashed_files(directory))
    (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2))


if __name__ == "__main__":
    main()
