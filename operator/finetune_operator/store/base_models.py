"""The `fetch` container: a model of the Hugging Face hub becomes a directory on the volume of base models.

`<root>/hub/<owner>/<name>/<commit>` exists only once it is whole: files are downloaded beside it, under a lock that
dies with its holder, compared with the sizes and digests that the hub tells, and given their name by one rename. A
killed attempt keeps its finished files. Weights come as safetensors only, since unpickling runs code.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.contract.base_models import FetchedModel
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import EXIT_CODES, Refused
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    HUB_TOKEN_VARIABLE,
    MODELS_ROOT,
    TERMINATION_MESSAGE_FILE,
    JobPaths,
    hub_snapshots,
)
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store import durable
from finetune_operator.store.container import read_config
from finetune_operator.store.hub import COMMIT, CONFIG_NAME, Trouble, Wanted, download, list_files, no_space, resolve
from finetune_operator.store.preflight import require_memory, run_preflight

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

DEFAULT_ENDPOINT = "https://huggingface.co"
WAITS_BETWEEN_TRIES_SECONDS = (5.0, 10.0, 20.0, 40.0, 60.0)
EXIT_TROUBLE = 1
GIGABYTE = 1_000_000_000

logger = get_logger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """Where the container finds things; tests put them elsewhere."""

    models: Path = Path(MODELS_ROOT)
    artifacts: Path = Path(ARTIFACTS_ROOT)
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE)
    waits_seconds: Sequence[float] = WAITS_BETWEEN_TRIES_SECONDS
    wait: Callable[[float], None] = time.sleep


def main(
    model_id: str,
    revision: str,
    job_config: Path | None = None,
    surroundings: Surroundings | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Fetch one model; for a job, remember which commit it was. The return value is the exit code."""
    configure_logging()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # its lines have signed addresses in them
    surroundings = surroundings or Surroundings()
    environment = os.environ if environment is None else environment
    endpoint = (environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    wanted = Wanted(model_id, revision, endpoint, environment.get(HUB_TOKEN_VARIABLE) or None)
    try:
        config = read_config(TrainingConfig, job_config) if job_config else None
        directory = fetch(wanted, surroundings, config)
        if config:
            surroundings.termination_log.write_text(_preflight(config, directory, surroundings))
    except Refused as refused:
        failure = refused.failure
        logger.error("base model refused", reason=failure.reason, message=failure.message, remedy=failure.remedy)
        surroundings.termination_log.write_text(failure.model_dump_json(by_alias=True))
        return EXIT_CODES[failure.reason]
    except Trouble as trouble:
        logger.error("base model not fetched", cause=str(trouble))
        surroundings.termination_log.write_text(f"{model_id} could not be fetched: {trouble}")
        return EXIT_TROUBLE
    logger.info("base model ready", id=model_id, revision=revision, directory=str(directory))
    return 0


def fetch(wanted: Wanted, surroundings: Surroundings, config: TrainingConfig | None = None) -> Path:
    """The whole model's directory. Raises `Refused` for what only the user can change, else `Trouble`.

    Asks nobody where the commit is known and its directory there. A job remembers the commit, and what can't fit into
    its GPU is not downloaded.
    """
    memory = Path(JobPaths.of(config, str(surroundings.artifacts)).base_model) if config else None
    waits = list(surroundings.waits_seconds)
    while True:
        try:
            commit = _commit(wanted, memory)
            return _snapshot(wanted, commit, surroundings, config)
        except Trouble as trouble:
            if not waits:
                raise
            logger.warning("trying again", cause=str(trouble), wait_seconds=waits[0])
            surroundings.wait(waits.pop(0))


def _preflight(config: TrainingConfig, directory: Path, surroundings: Surroundings) -> str:
    """The container's termination message. Here the job's rows, which `prepare` made, and its base model are both."""
    paths = JobPaths.of(config, str(surroundings.artifacts))
    report = DatasetReport.model_validate_json(Path(paths.dataset_report).read_bytes())
    found = run_preflight(config, directory, Path(paths.train_rows), report.rows)
    return found.model_dump_json(by_alias=True)


def _commit(wanted: Wanted, memory: Path | None) -> str:
    """What the revision meant when the job first asked; a branch that has moved on since doesn't matter."""
    if memory and memory.exists():
        return FetchedModel.model_validate_json(memory.read_bytes()).commit
    commit = wanted.revision if COMMIT.fullmatch(wanted.revision) else resolve(wanted)
    return _remember(FetchedModel(id=wanted.id, commit=commit), memory) if memory else commit


def _remember(fetched: FetchedModel, memory: Path) -> str:
    """The first of two pods of one job decides."""
    memory.parent.mkdir(parents=True, exist_ok=True)
    temporary = memory.with_name(f".{memory.name}.{uuid.uuid4().hex}")
    durable.write(temporary, fetched.model_dump_json(by_alias=True).encode())
    try:
        os.link(temporary, memory)
    except FileExistsError:
        return FetchedModel.model_validate_json(memory.read_bytes()).commit
    finally:
        temporary.unlink()
    durable.sync(memory.parent)
    return fetched.commit


def _snapshot(wanted: Wanted, commit: str, surroundings: Surroundings, config: TrainingConfig | None) -> Path:
    destination = Path(hub_snapshots(wanted.id, str(surroundings.models))) / commit
    if destination.exists():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(destination.with_name(f".{commit}.lock")):
        if not destination.exists():
            _download(wanted, commit, destination, config)
    return destination


@contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    """As long as another pod downloads the same; the kernel or the file server drops the lock with its holder."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another pod is downloading this model; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _download(wanted: Wanted, commit: str, destination: Path, config: TrainingConfig | None) -> None:
    files = list_files(wanted, commit)
    work = destination.with_name(f".{commit}.partial")
    work.mkdir(exist_ok=True)
    for left_by_dead_attempt in work.rglob("*.incomplete"):
        left_by_dead_attempt.unlink()
    if config:
        download(wanted, commit, work, (CONFIG_NAME,))
        require_memory(config, work)
    _require_space(wanted, files, work)
    size_bytes = sum(file.size for file in files)
    logger.info("downloading", id=wanted.id, commit=commit, files=len(files), size_bytes=size_bytes)
    download(wanted, commit, work)
    _require_whole(files, work)
    shutil.rmtree(work / ".cache", ignore_errors=True)
    for file in files:
        durable.sync(work / file.path)
    durable.sync(work)
    work.rename(destination)
    durable.sync(destination.parent)


def _require_space(wanted: Wanted, files: "Sequence[RepoFile]", work: Path) -> None:
    missing = sum(file.size for file in files if not (work / file.path).exists())
    free = shutil.disk_usage(work).free
    if missing > free:
        raise no_space(f"{wanted.id} needs {missing / GIGABYTE:.1f} GB more, and {free / GIGABYTE:.1f} GB are free")


def _require_whole(files: "Sequence[RepoFile]", work: Path) -> None:
    """A damaged file goes, so that the next try downloads it anew."""
    for file in files:
        path = work / file.path
        if not path.is_file():
            raise Trouble(f"{file.path} did not arrive")
        damaged = path.stat().st_size != file.size or (file.lfs is not None and _sha256(path) != file.lfs.sha256)
        if damaged:
            path.unlink()
            raise Trouble(f"{file.path} arrived damaged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
