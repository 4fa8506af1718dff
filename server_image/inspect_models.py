"""Build step: let vLLM inspect the model classes that are mostly fine-tuned, so that a starting engine need not.

    VLLM_CACHE_ROOT=/opt/vllm python inspect_models.py

vLLM asks of each model class what it supports in a process of its own, 13 s of an engine's start, and keeps the
answers below VLLM_CACHE_ROOT by the hash of the class's source. In a pod that is empty: serve.py copies them there.
Source: vllm/model_executor/models/registry.py, `_LazyRegisteredModel.inspect_model_cls`.
"""

import logging
from collections.abc import Callable
from typing import TypeVar

from vllm.model_executor.models import registry

T = TypeVar("T")

ARCHITECTURES = (
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "GptOssForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)


def here(function: Callable[[], T]) -> T:
    """vLLM takes a process each time, to keep CUDA out of the server's; this one ends with the build."""
    return function()


def main() -> None:
    registry._run_in_subprocess = here
    for architecture in ARCHITECTURES:
        try:
            registry.ModelRegistry.models[architecture].inspect_model_cls()
        except Exception:
            # A build of vLLM without this class: an engine that asks for it will say so.
            logging.exception("%s was not inspected", architecture)


if __name__ == "__main__":
    main()
