"""What a job asks for besides its adapter (`spec.outputs`), and the listing of all that it left.

Everything is made after the adapter is published and before the result is written: aside, put on the disk, then
renamed, so that a reader sees whole outputs only, and an attempt that follows a dead one makes what is missing. What
can't be made is told in the result, with the remedy; it is no reason to lose a training.
"""

import json
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import durable
from child import environment
from failures import log
from memory import available_memory_bytes
from rows import read_rows

from finetune_operator.contract.artifacts import (
    Artifact,
    ArtifactListing,
    ArtifactType,
    Output,
    OutputError,
    WeightsManifest,
)
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig, TrainingResult
from finetune_operator.core import modelfile, unsloth_script
from finetune_operator.core.artifact_listing import FoundFile, list_files, summed_up
from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.core.chat_format import ChatFormat, Messages, find_format

ERROR_MAX_CHARACTERS = 300
# 140 GB, read, written and hashed at 80 MB/s: a volume that hangs must not hold the result back.
TOOL_TIMEOUT_SECONDS = 5400.0
GIB = 1 << 30
Rows = list[dict[str, Any]]


def make_outputs(
    config: TrainingConfig, paths: JobPaths, trained: TrainingResult, tell: Callable[[], None] | None = None
) -> tuple[OutputError, ...]:
    """Those of the wanted that are not there; the order is that in which one needs the other.

    `tell` is called after each that is made: what is there is not to be lost with the next one.
    """
    errors = []
    for output in Output:
        if output not in config.outputs:
            continue
        try:
            _make(output, config, paths, trained)
        except Exception as error:  # noqa: BLE001 - hours of training must not be lost with an output
            log("an output can't be made; the adapter is published without it", error=traceback.format_exc())
            text = str(error).strip() or type(error).__name__
            errors.append(OutputError(output=output, message=text[:ERROR_MAX_CHARACTERS]))
        else:
            if tell:
                tell()
    return tuple(errors)


def missing_outputs(config: TrainingConfig, paths: JobPaths) -> tuple[Output, ...]:
    """Those of the wanted that are not there yet."""
    places = {
        Output.MERGED_WEIGHTS: paths.merged,
        Output.GGUF_F16: paths.gguf_f16,
        Output.GGUF_Q8: paths.gguf_q8,
        Output.UNSLOTH_SCRIPT: paths.script,
        Output.OLLAMA_MODELFILE: paths.modelfile,
    }
    return tuple(output for output in Output if output in config.outputs and not Path(places[output]).exists())


def merged_digest(config: TrainingConfig, paths: JobPaths) -> str | None:
    """By which a server knows the merged weights again; None where there are none, or none were asked for."""
    file = Path(paths.merged) / MANIFEST_NAME
    if Output.MERGED_WEIGHTS not in config.outputs or not file.exists():
        return None
    try:
        return WeightsManifest.model_validate_json(file.read_bytes()).digest
    except ValueError as error:
        # Nothing is lost but the weights: the version is served by its adapter.
        log("the manifest of the merged weights is broken", error=str(error))
        return None


def _make(output: Output, config: TrainingConfig, paths: JobPaths, trained: TrainingResult) -> None:
    match output:
        case Output.MERGED_WEIGHTS:
            if trained.adapter_digest is None:
                raise ValueError("there is no adapter to merge: remove MergedWeights from spec.outputs")
            origin = Origin(config.base_model_name, trained.adapter_digest)
            merge(Path(config.base_model_path), Path(paths.adapter), Path(paths.merged), origin)
        case Output.GGUF_F16:
            convert(config, paths, Path(paths.gguf_f16), Gguf("f16", bits=16))
        case Output.GGUF_Q8:
            # Blocks of 32 numbers share a factor of 16 bit.
            convert(config, paths, Path(paths.gguf_q8), Gguf("q8_0", bits=8.5))
        case Output.UNSLOTH_SCRIPT:
            rows = read_rows(Path(paths.test_rows), config.method)
            durable.write(Path(paths.script), script_of(config, rows, trained.steps))
        case Output.OLLAMA_MODELFILE:
            durable.write(Path(paths.modelfile), modelfile_of(config, merged=Path(paths.merged).is_dir()))
    log("made", output=output)


class Origin(NamedTuple):
    """What weights are merged of; the digest is of the adapter."""

    base_model_name: str
    adapter_digest: str


def merge(base: Path, adapter: Path, destination: Path, origin: Origin | None = None) -> None:
    """In a process of its own: without Unsloth's patches, and with a bound on its memory and on its time.

    What has an `origin` is to be served: it gets a manifest.
    """
    if destination.is_dir():
        return
    if "quantization_config" in json.loads((base / "config.json").read_bytes()):
        raise ValueError(
            "the base model's files are quantized, and merging needs full precision: train on the model that they "
            "were made of (quantization: 4bit loads it in 4 bit)"
        )
    dtype, itemsize = precision()
    weights_bytes = count_weights(base) * itemsize
    available = available_memory_bytes()
    check_room(weights_bytes, available, shutil.disk_usage(destination.parent).free)
    temporary = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    log("merging", dtype=dtype, weights_bytes=weights_bytes, available_memory_bytes=available)
    arguments = ["--base", str(base), "--adapter", str(adapter), "--output", str(temporary), "--dtype", dtype]
    if origin:
        arguments += ["--base-model-name", origin.base_model_name, "--adapter-digest", origin.adapter_digest]
    run_tool("merge.py", "merging", [*arguments, "--memory-bytes", str(available), "--die-with-parent"])
    durable.publish(temporary, destination)


class Gguf(NamedTuple):
    """A precision by llama.cpp's name, and the bits that a number takes on the average."""

    name: str
    bits: float


def convert(config: TrainingConfig, paths: JobPaths, destination: Path, gguf: Gguf) -> None:
    """By llama.cpp's own converter, from the merged weights; these go again if the job does not want them."""
    if destination.exists():
        return
    merged = Path(paths.merged)
    kept = merged.is_dir()
    if not kept:
        merged = merged.with_name(f".{merged.name}")
        merge(Path(config.base_model_path), Path(paths.adapter), merged)
    try:
        free, needed = shutil.disk_usage(destination.parent).free, int(count_weights(merged) * gguf.bits / 8)
        if needed > free:
            raise ValueError(
                f"a GGUF file of {needed / GIB:.1f} GiB does not fit into the {free / GIB:.1f} that are free on the "
                "artifacts volume: enlarge it, or delete what is old"
            )
        temporary = destination.with_name(f".{destination.name}")
        log("converting", precision=gguf.name, size_bytes=needed)
        arguments = ["--model", str(merged), "--output", str(temporary), "--precision", gguf.name]
        run_tool("convert.py", "converting to GGUF", arguments)
        durable.publish(temporary, destination)
    finally:
        if not kept:
            shutil.rmtree(merged, ignore_errors=True)


def run_tool(script: str, what: str, arguments: Sequence[str]) -> None:
    """A script beside this file, whose last words are the error if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_SECONDS,
            check=False,
            env=environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{what} took more than {error.timeout:g} s: is the artifacts volume that slow?") from error
    if done.returncode:
        log(f"{what} failed", exit_code=done.returncode, output=done.stderr[-4000:])
        words = done.stderr.strip().splitlines()
        raise RuntimeError(
            f"{what} ended with {done.returncode}: {words[-1] if words else 'no message'}: see the log of the trainer"
        )


def check_room(weights_bytes: int, memory_bytes: int, disk_bytes: int) -> None:
    """Raises ValueError where merging would not fit: beyond the memory, the kernel ends the whole training."""
    # One file's weights are held twice while it is written, and torch itself needs some.
    needed = int(weights_bytes * 1.1) + min(weights_bytes, 2 * GIB) + GIB
    if needed > memory_bytes:
        raise ValueError(
            f"merging needs {needed / GIB:.1f} GiB of memory and {memory_bytes / GIB:.1f} are free: raise "
            "spec.resources.limits.memory, or merge elsewhere"
        )
    if weights_bytes > disk_bytes:
        raise ValueError(
            f"merged weights of {weights_bytes / GIB:.1f} GiB don't fit into the {disk_bytes / GIB:.1f} that are free "
            "on the artifacts volume: enlarge it, or delete what is old"
        )


def precision() -> tuple[str, int]:
    """(name, bytes) of a number in the merged weights: as in training."""
    import torch

    return ("bfloat16", 2) if torch.cuda.is_available() else ("float32", 4)


def count_weights(base: Path) -> int:
    """Of all safetensors files, by their headers."""
    from safetensors import safe_open

    total = 0
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                total += size
    if not total:
        raise ValueError(f"{base} has no safetensors files: merging takes no pickles")
    return total


def script_of(config: TrainingConfig, test_rows: Rows, steps: int) -> str:
    from trainers import MOST_LOGGED_STEPS, arguments_of

    hub = config.base_model_hub
    origin = unsloth_script.Origin(hub.id, hub.revision) if hub else unsloth_script.Origin(config.base_model_path)
    arguments = {"logging_steps": max(1, steps // MOST_LOGGED_STEPS)} | arguments_of(config, test_rows, Path())
    job = f"{config.job.namespace}/{config.job.name}"
    return unsloth_script.unsloth_script(config, origin, arguments, job)


def modelfile_of(config: TrainingConfig, *, merged: bool) -> str:
    from transformers import AutoTokenizer

    base = Path(config.base_model_path)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    architectures = json.loads((base / "config.json").read_bytes()).get("architectures") or ["a model"]
    hub = config.base_model_hub
    origin = modelfile.Origin(
        config.base_model_name, architectures[0], hub.id if hub else None, hub.revision if hub else None
    )
    conversation = modelfile.Conversation(format_of(tokenizer), tokenizer.bos_token, ends_of(base, tokenizer))
    return modelfile.modelfile(origin, conversation, merged=merged)


def format_of(tokenizer: Any) -> ChatFormat | None:
    from jinja2 import TemplateError

    def render(messages: Messages, ask: bool) -> str:
        try:
            return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ask))
        except TemplateError as error:
            raise ValueError(str(error)) from error

    return find_format(render)


def ends_of(base: Path, tokenizer: Any) -> tuple[str, ...]:
    """The tokens at which the model stops."""
    file = base / "generation_config.json"
    configured = json.loads(file.read_bytes()).get("eos_token_id") if file.exists() else None
    ids = configured if isinstance(configured, list) else [] if configured is None else [configured]
    return tuple(dict.fromkeys([tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(ids)]))


def write_listing(paths: JobPaths) -> tuple[Artifact, ...]:
    """`artifacts.json` names each file; the result, which has to be short, each directory.

    Checkpoints are not among them: they go once there is a result. The log's size is that of this moment.
    """
    files = list_files(files_below(Path(paths.directory)))
    kept = [file for file in files if file.type is not ArtifactType.CHECKPOINT]
    durable.write(Path(paths.artifacts), ArtifactListing(tuple(kept)).model_dump_json(by_alias=True, indent=2) + "\n")
    return summed_up(kept)


def files_below(directory: Path) -> Iterator[FoundFile]:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield FoundFile(path.relative_to(directory).as_posix(), path.stat().st_size)
