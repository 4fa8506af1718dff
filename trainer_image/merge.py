"""Merge a published adapter into its base model, in full precision, as a model that needs no adapter.

    python merge.py --base /models/llama --adapter adapter --output merged --dtype bfloat16

The base model is loaded without quantization, whatever it was trained with: the adapter is added to the weights
themselves, not to their 4-bit approximation. On the CPU, since the GPU may be full of the training.
"""

import argparse
import resource
import sys
from pathlib import Path

from child import subordinate


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="directory of the base model")
    parser.add_argument("--adapter", type=Path, required=True, help="directory of the adapter")
    parser.add_argument("--output", type=Path, required=True, help="directory of the merged model; must not exist")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
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
    # Transformers' own classes have loaded it: code that a file names is not needed, and no server would take it.
    vars(model.config).pop("auto_map", None)
    tokenizer.init_kwargs.pop("auto_map", None)
    model.save_pretrained(arguments.output, max_shard_size="2GB")
    tokenizer.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
