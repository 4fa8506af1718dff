"""Train one LoRA adapter: config file in, progress out, adapter with manifest and termination message at the end.

    python train.py [--config /etc/finetune/training.json] [--artifacts /artifacts] [--processes-per-node N ...]

Run by the operator's Job, after the container `prepare` made the dataset on the same volume. It may be started any
number of times for one job: it goes on from the last checkpoint, and repeats the outcome of a job that is done.

Exit codes: 0 done; 42 to 49 no second try will help (EXIT_CODES of the contract); 143 asked to leave, checkpoint saved;
75 another attempt holds the job; 69 a process that trains along is gone; 1 anything else, with a traceback. All but 0
and 42 to 49 are worth another try. Several processes are started by launch.py, each as this program again.
"""

import argparse
import gc
import importlib.metadata
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import failures
from attempt import EXIT_TERMINATED, Termination, exclusive, new_attempt_id
from failures import GivenUp, is_out_of_memory, log, out_of_memory
from finishing import finish, keep, tidy_up, with_losses
from job_log import POSTED, keep_log
from launch import is_trained, launch, message_of
from memory import give_back
from process_group import EXIT_PEERS_LOST, ProcessGroup
from publish import publish_adapter, read_result, write_termination_message
from pydantic import ValidationError

from finetune_operator.contract.base_models import FetchedModel, HubModel
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    CONFIG_FILE,
    INTERNAL_TOKEN_VARIABLE,
    TERMINATION_MESSAGE_FILE,
    JobPaths,
)
from finetune_operator.contract.training import Progress, TrainingConfig, TrainingResult

if TYPE_CHECKING:
    from reporter import Reporter

# What the leader of several processes says to the others.
TASK, TRAIN, NOTHING, PUBLISHED = "task", "train", "nothing", "published"
PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "axolotl")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=Path, default=Path(CONFIG_FILE), help="TrainingConfig as JSON")
    parser.add_argument("--artifacts", type=Path, default=Path(ARTIFACTS_ROOT), help="root of the artifacts volume")
    parser.add_argument("--termination-message", type=Path, default=Path(TERMINATION_MESSAGE_FILE))
    parser.add_argument("--lock-wait-seconds", type=float, default=300, help="for another attempt at this job")
    parser.add_argument("--processes-per-node", type=int, default=1, help="one for each GPU")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0, help="which of them this one is")
    parser.add_argument("--leader", help="HOST:PORT at which the first node is found")
    parser.add_argument("--address", help="host name by which the others find this node")
    parser.add_argument("--rendezvous-wait-seconds", type=float, default=1800, help="for the other nodes")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    group = ProcessGroup.of_environment()
    if group.is_alone:
        return attempt_to_train(arguments, group)
    try:
        code = attempt_to_train(arguments, group)
    except SystemExit as error:
        code = int(error.code or 0)
    except Exception:  # noqa: BLE001 - as the interpreter ends a program
        sys.excepthook(*sys.exc_info())
        code = 1
    POSTED.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the end of connections to processes that may be gone: others wait for this one's exit code.
    os._exit(code)


def attempt_to_train(arguments: argparse.Namespace, group: ProcessGroup) -> int:
    """The exit code; what there is to say is in the termination message."""
    termination = Termination()
    try:
        if arguments.nodes * arguments.processes_per_node > 1:
            return launch(arguments, read_config(arguments.config))
        result = run(arguments, termination, group)
    except GivenUp as error:
        log("gave up", failure=error.failure.model_dump())
        write_termination_message(error.failure, message_file(arguments, group))
        return EXIT_CODES[error.failure.reason]
    except (RuntimeError, OSError) as error:
        if not group.is_lost(error):
            raise
        log("a process that trains along is gone; all go on from the last checkpoint", error=str(error)[:500])
        return EXIT_PEERS_LOST
    if result:
        write_termination_message(result, message_file(arguments, group))
        log("done", **result.model_dump(exclude={"dataset", "versions"}))
    return 0


def message_file(arguments: argparse.Namespace, group: ProcessGroup) -> Path:
    """Of several processes each has its own, from which launch.py chooses."""
    file: Path = arguments.termination_message
    return file if group.is_alone else message_of(file, group.local_rank)


def run(arguments: argparse.Namespace, termination: Termination, group: ProcessGroup) -> TrainingResult | None:
    """The job's result, made now or by an earlier attempt; None in one of several processes, which only train."""
    config = read_config(arguments.config)
    paths = JobPaths.of(config, str(arguments.artifacts))
    config = with_fetched_base_model(config, Path(paths.base_model))
    message = message_file(arguments, group)
    attempt = new_attempt_id()
    Path(paths.directory).mkdir(parents=True, exist_ok=True)
    keep_log(Path(paths.log), attempt, crashes_only=not group.is_leader)
    if group.is_leader:
        POSTED.begin(config, Path(paths.log))
    if not group.is_alone:
        failures.COMMON_FIELDS["rank"] = group.rank
    log("attempt", attempt=attempt, job=config.job.name, method=config.method, backend=config.backend)
    group.connect()
    if not group.is_leader:
        # The leader holds the lock for all.
        if group.hear(TASK) == TRAIN:
            train_if_memory_lasts(config, paths, attempt, termination, group, message)
        return None
    with exclusive(Path(paths.lock), attempt, arguments.lock_wait_seconds):
        if not group.is_alone:
            trained_before = is_trained(paths)
            group.say(TASK, NOTHING if trained_before else TRAIN)
            return (
                None if trained_before else train_if_memory_lasts(config, paths, attempt, termination, group, message)
            )
        if result := read_result(Path(paths.result), Path(paths.adapter)):
            log("an earlier attempt is done; its result stands")
            tidy_up(paths)
            return result
        if trained := read_result(Path(paths.trained), Path(paths.adapter)):
            log("an earlier attempt trained; what is left is to evaluate and to export")
            tell_of_the_end(config, attempt, trained)
        else:
            trained = train_if_memory_lasts(config, paths, attempt, termination, group, message)
            give_back()
        return finish(config, paths, attempt, trained, message) if trained else None


def train_if_memory_lasts(
    config: TrainingConfig,
    paths: JobPaths,
    attempt: str,
    termination: Termination,
    group: ProcessGroup,
    message: Path,
) -> TrainingResult | None:
    """A lack of memory is for the user to mend."""
    try:
        return train(config, paths, attempt, termination, group, message)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from error
        raise


def read_config(path: Path) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{path}: {error}"
        remedy = "trainer image and operator must be of one release; the operator writes this file"
        raise GivenUp(FailureReason.INVALID_CONFIG, message, remedy) from error


def with_fetched_base_model(config: TrainingConfig, fetched_file: Path) -> TrainingConfig:
    """For a model of the hub: the directory of the commit that the container `fetch` left on the volume."""
    if config.base_model_hub is None:
        return config
    try:
        fetched = FetchedModel.model_validate_json(fetched_file.read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{fetched_file}: {error}"
        remedy = "trainer image and operator must be of one release; the container fetch writes this file"
        raise GivenUp(FailureReason.INVALID_CONFIG, message, remedy) from error
    frozen = HubModel(id=fetched.id, revision=fetched.commit)
    path = f"{config.base_model_path}/{fetched.commit}"
    return config.model_copy(update={"base_model_path": path, "base_model_hub": frozen})


def train(
    config: TrainingConfig,
    paths: JobPaths,
    attempt: str,
    termination: Termination,
    group: ProcessGroup,
    message: Path,
) -> TrainingResult | None:
    """Load, train and publish; of several processes, the leader publishes and all end with that."""
    from rows import read_report, read_rows

    group.join()
    check_base_model(config)
    report = read_report(Path(paths.dataset_report))
    train_rows = read_rows(Path(paths.train_rows), config.method)
    test_rows = read_rows(Path(paths.test_rows), config.method)
    started = time.monotonic()
    model, tokenizer = load(config)
    log("loaded", base_model=config.base_model_name, seconds=round(time.monotonic() - started, 1))

    # After `load`: Unsloth has to be imported before TRL and Transformers.
    from backends import make_trainer
    from best_checkpoint import BestCheckpoint
    from checkpoints import CheckpointCallback, last_complete_checkpoint, stop_at_the_end
    from held_out import HeldOut
    from progress import ProgressCallback
    from starting_point import load_starting_adapter
    from trackers import make_trackers
    from transformers import PrinterCallback

    load_starting_adapter(config, model)
    held_out = HeldOut(config, tokenizer, test_rows)
    reporter = make_reporter(config) if group.is_leader else None
    resumed = group.share(last_complete_checkpoint(Path(paths.checkpoints)) if group.is_leader else None)
    trainer = make_trainer(config, model, tokenizer, train_rows, test_rows, Path(paths.checkpoints))
    # TRL counts the tokens of this process alone.
    trainer._total_train_tokens = resumed.tokens if resumed else 0
    checkpoints = CheckpointCallback(termination, resumed, lambda: int(trainer._total_train_tokens), group)
    stop_at_the_end(trainer)
    best = BestCheckpoint(trainer, termination)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints)
    if group.is_leader:
        trainer.add_callback(ProgressCallback(reporter, config.job, attempt, checkpoints))
        for tracker in make_trackers(config, paths, termination):
            trainer.add_callback(tracker)
    resumed_from = resumed.directory.name if resumed else None
    log("training", rows=len(train_rows), test_rows=len(test_rows), resumed_from=resumed_from)
    termination.training = True
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(resumed.directory) if resumed else None)
    train_seconds = (resumed.train_seconds if resumed else 0.0) + time.monotonic() - started
    termination.training = False
    if reporter:
        reporter.close()
    if group.any(termination.requested):
        log("asked to leave; the next attempt goes on from here", step=trainer.state.global_step)
        raise SystemExit(EXIT_TERMINATED)

    if not group.is_leader:
        group.hear(PUBLISHED)
        return None
    manifest = publish_adapter(trainer.model, Path(paths.adapter), attempt, config.base_model_name)
    result = make_result(trainer.state, manifest.digest, report, train_seconds)
    told = {"tokens": int(trainer._total_train_tokens), "init_from": config.init_from, "lost_best": best.lost}
    result = result.model_copy(update=told)
    if config.base_model_hub:
        result = result.model_copy(update={"base_model_commit": config.base_model_hub.revision})
    keep(config, paths, result, message)
    # The other processes' GPUs are free from now on; launch.py goes on with what is left, in one process.
    group.say(PUBLISHED, "")
    if not group.is_alone:
        return None
    # With an evaluation, the process that loads the published adapter anyway.
    return with_losses(result, held_out, trainer.model) if config.evaluation is None else result


def check_base_model(config: TrainingConfig) -> None:
    if not (Path(config.base_model_path) / "config.json").is_file():
        raise GivenUp(
            FailureReason.BASE_MODEL_NOT_FOUND,
            f"there is no model at {config.base_model_path}",
            "check spec.baseModel.source: the volume's claimName and the path of a directory with config.json in it",
        )


def load(config: TrainingConfig) -> tuple[Any, Any]:
    """Model with adapter, and tokenizer, by the backend that the job names."""
    import torch

    has_gpu = torch.cuda.is_available()
    if config.training.quantization != "none" and not has_gpu:
        raise GivenUp(
            FailureReason.INVALID_CONFIG,
            f"quantization {config.training.quantization} needs a GPU and there is none",
            "set spec.training.quantization: none, or ask for a GPU in spec.resources",
        )
    import backends

    # Without a GPU in float32: bfloat16 is emulated on most CPUs, and slower.
    dtype = torch.bfloat16 if has_gpu and torch.cuda.is_bf16_supported() else None if has_gpu else torch.float32
    model, tokenizer = backends.load(config, dtype)
    if not tokenizer.chat_template:
        raise GivenUp(
            FailureReason.INVALID_CONFIG,
            f"the tokenizer of {config.base_model_name} has no chat template",
            "choose an instruction-tuned base model, or put a chat_template.jinja beside it",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def make_reporter(config: TrainingConfig) -> "Reporter | None":
    from reporter import Reporter

    if config.progress_url is None:
        return None
    return Reporter(config.progress_url, os.environ.get(INTERNAL_TOKEN_VARIABLE), config.progress_interval_seconds)


def tell_of_the_end(config: TrainingConfig, attempt: str, trained: TrainingResult) -> None:
    """Progress of an attempt that does not train any more."""
    if reporter := make_reporter(config):
        reporter.offer(
            Progress(
                job=config.job,
                attempt=attempt,
                step=trained.steps,
                total_steps=trained.steps,
                epoch=trained.epochs,
                total_epochs=trained.epochs,
                loss=trained.final_loss,
                best_loss=trained.best_loss,
                eta_seconds=0,
                tokens=trained.tokens,
                time=datetime.now(UTC),
            )
        )
        reporter.close()


def make_result(
    state: Any,
    digest: str,
    report: DatasetReport,
    train_seconds: float,
) -> TrainingResult:
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return TrainingResult(
        adapter_digest=digest,
        final_loss=losses[-1] if losses else None,
        best_loss=min(losses, default=None),
        test_loss=None,
        base_test_loss=None,
        steps=state.global_step,
        epochs=round(state.epoch or 0.0, 4),
        train_seconds=round(train_seconds, 3),
        dataset=report,
        versions=dict(installed(PACKAGES)),
    )


def installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of them that this backend's image has, with their versions."""
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)


if __name__ == "__main__":
    code = main()
    POSTED.close()
    # Unsloth and TRL leave threads and GPU handles whose teardown takes seconds; everything is on the disk.
    gc.disable()
    sys.stdout.flush()
    os._exit(code) if code == 0 else sys.exit(code)
