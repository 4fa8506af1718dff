"""The process of a batch inference: every row of a dataset to one or two models, the answers to the artifacts volume.

It may be started any number of times for one BatchInference, and goes on where the attempt before it was. Exit codes:
0 done, and the report is the termination message; 42 to 47 no second try will help; 75 another attempt is at work;
1 the engine is away for longer than was waited; 143 asked to leave.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from finetune_operator.contract.batch_inference import (
    AskedModel,
    BatchInferenceConfig,
    BatchReport,
    ResultFile,
)
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    ENGINE_API_KEY_VARIABLE,
    INTERNAL_TOKEN_VARIABLE,
    TERMINATION_MESSAGE_FILE,
    BatchPaths,
)
from finetune_operator.contract.training import Progress
from finetune_operator.core.artifacts import files_digest
from finetune_operator.core.batch_inference import Completion, Request, answered_line, eta_seconds, refused_line
from finetune_operator.core.endings import LOCKED_EXIT_CODE
from finetune_operator.evaluator.batch_pairs import Sender, put_to_vote
from finetune_operator.evaluator.batch_requests import count_requests, read_requests, write_requests
from finetune_operator.evaluator.batch_results import PartialResults
from finetune_operator.evaluator.batch_telling import Teller
from finetune_operator.evaluator.engine import Engine, EngineRefused, Patience, Sampling
from finetune_operator.evaluator.process import KEEP_ALIVE_SECONDS, Remedies, for_each, told
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store import durable
from finetune_operator.store.container import read_config, take_lock
from finetune_operator.store.datasets.space import told_when_full
from finetune_operator.store.reporting import Reporter

REMEDIES = Remedies(
    refused="see the engine's log; a new BatchInference can ask for less",
    unavailable="see why the engine does not answer: the ModelVersion's condition Loaded and the engine's log; what "
    "was answered stays on the volume",
)
ROW_STATUSES = frozenset({400, 413, 422})
"""Of what is wrong with one row, such as its length; any other refusal is of all rows."""
PROGRESS_SECONDS = 10.0
ERROR_MAX_CHARACTERS = 300

logger = get_logger(__name__)


class AttemptRunning(Exception):
    """Another attempt at this batch is at work."""


@dataclass(frozen=True)
class Surroundings:
    """Where the container finds things, and how patient it is; tests choose otherwise."""

    artifacts: Path = Path(ARTIFACTS_ROOT)
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    patience: Patience = field(default_factory=Patience)
    progress_seconds: float = PROGRESS_SECONDS


def main(config_file: Path, surroundings: Surroundings | None = None) -> int:
    """Ask all that is not yet answered. The return value is the exit code."""
    configure_logging()
    surroundings = surroundings or Surroundings()

    def work() -> BatchReport:
        config = read_config(BatchInferenceConfig, config_file)
        return checked(run(config, surroundings))

    try:
        return told(work, surroundings.termination_log, REMEDIES)
    except AttemptRunning as error:
        logger.warning("another attempt is at work; leaving", error=str(error))
        return LOCKED_EXIT_CODE


def checked(report: BatchReport) -> BatchReport:
    """Raises `Refused` where a model has answered no row at all."""
    for file in report.files:
        if file.failed == file.rows:
            raise Refused.because(
                FailureReason.ENGINE_REFUSED,
                f"the engine of {file.served_name} answered none of {file.rows} rows, the first: {file.first_error}",
                "correct the dataset, lower spec.parameters.maxTokens or raise the version's spec.serving.maxModelLen, "
                "and create a new BatchInference",
            )
    return report


def run(config: BatchInferenceConfig, surroundings: Surroundings) -> BatchReport:
    """The report, after this attempt or an earlier one. Raises `Refused`, `EngineRefused`, `EngineUnavailable`, and
    `AttemptRunning`."""
    paths = BatchPaths(config.batch.namespace, config.batch.uid, str(surroundings.artifacts))
    manifest = Path(paths.manifest)
    with told_when_full(_volume_full):
        Path(paths.directory).mkdir(parents=True, exist_ok=True)
        with _exclusive(Path(paths.lock)):
            if manifest.exists():
                report = BatchReport.model_validate_json(manifest.read_bytes())
            else:
                report = asyncio.run(_Attempt(config, paths, surroundings).run())
                durable.replace(manifest, report.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode())
            for model in config.models:
                Path(paths.partial_answers(model.served_name)).unlink(missing_ok=True)
            pairs = asyncio.run(_told_to_api(config, paths, surroundings))
            return report if pairs is None else report.model_copy(update={"pairs": pairs})


async def _told_to_api(config: BatchInferenceConfig, paths: BatchPaths, surroundings: Surroundings) -> int | None:
    """After the manifest: results that nobody can read or vote on yet are results. Pairs that are voted on, if any."""
    token = surroundings.environment.get(INTERNAL_TOKEN_VARIABLE)
    async with aiohttp.ClientSession() as session:
        await Teller(session, config, token).tell_all(paths, surroundings.patience)
        if config.voting is None:
            return None
        return await put_to_vote(config, config.voting, paths, Sender(session, token, surroundings.patience))


class _Attempt:
    """One pod's work on the batch."""

    def __init__(self, config: BatchInferenceConfig, paths: BatchPaths, surroundings: Surroundings) -> None:
        self._config = config
        self._paths = paths
        self._surroundings = surroundings
        self._requests = Path(paths.requests)
        sampling = config.sampling
        self._sampling = Sampling(sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed)

    async def run(self) -> BatchReport:
        config, environment = self._config, self._surroundings.environment
        if not self._requests.exists():
            write_requests(config, self._requests, environment)
        rows = count_requests(self._requests)
        logger.info("asking", rows=rows, models=[model.served_name for model in config.models])
        connector = aiohttp.TCPConnector(limit=config.max_concurrent_requests + 1, keepalive_timeout=KEEP_ALIVE_SECONDS)
        async with aiohttp.ClientSession(connector=connector) as session:
            token = environment.get(INTERNAL_TOKEN_VARIABLE)
            reporter, teller = Reporter(session, config.progress_url, token), Teller(session, config, token)
            counted = _Counted(self._attempt_name, config, rows)
            files = []
            for model in config.models:
                with PartialResults(Path(self._paths.partial_answers(model.served_name)), rows) as results:
                    counted.follow(results)

                    async def tell(name: str = model.served_name, results: PartialResults = results) -> None:
                        await reporter.report([counted.progress()])
                        await teller.tell_new(name, self._requests, results.line)

                    async with _repeated(tell, self._surroundings.progress_seconds):
                        files.append(await self._answered(model, session, results))
        digest = files_digest((file.name, file.sha256) for file in files)
        return BatchReport(rows=rows, files=tuple(files), digest=digest)

    async def _answered(self, model: AskedModel, session: aiohttp.ClientSession, results: PartialResults) -> ResultFile:
        key = self._surroundings.environment.get(ENGINE_API_KEY_VARIABLE, "")
        engine = Engine(session, model.engine_url, key, self._surroundings.patience)

        async def ask(request: Request) -> None:
            results.add(await self._line(engine, model, request))

        todo = (request for request in read_requests(self._requests) if request.index not in results)
        await for_each(todo, self._config.max_concurrent_requests, ask)
        file = self._paths.answers(model.served_name)
        return results.publish(model.served_name, Path(file), str(file.relative_to(self._paths.directory)))

    async def _line(self, engine: Engine, model: AskedModel, request: Request) -> bytes:
        try:
            answer = await engine.answer(model.served_name, request.asked, self._sampling)
        except EngineRefused as error:
            if error.status not in ROW_STATUSES:
                raise
            return refused_line(request, error.status, str(error)[:ERROR_MAX_CHARACTERS])
        completion = Completion(
            id=answer.id,
            model=model.served_name,
            created=answer.created,
            content=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.tokens,
        )
        return answered_line(request, completion)

    @property
    def _attempt_name(self) -> str:
        return self._surroundings.environment.get("POD_NAME") or socket.gethostname()


class _Counted:
    """The rows of all models together, as the api is told of them."""

    def __init__(self, attempt: str, config: BatchInferenceConfig, rows: int) -> None:
        self._attempt = attempt
        self._config = config
        self._total = rows * len(config.models)
        self._models: list[PartialResults] = []
        self._known_before = 0
        self._started = time.monotonic()

    def follow(self, results: PartialResults) -> None:
        """Of the model that is asked from now on."""
        self._models.append(results)
        self._known_before += results.done

    def progress(self) -> Progress:
        done = sum(results.done for results in self._models)
        elapsed = time.monotonic() - self._started
        return Progress(
            job=self._config.batch,
            attempt=self._attempt,
            step=done,
            total_steps=self._total,
            epoch=done / self._total,
            total_epochs=1.0,
            failed_rows=sum(results.failed for results in self._models),
            eta_seconds=eta_seconds(done, self._total, self._known_before, elapsed),
            tokens=sum(results.tokens for results in self._models),
            time=datetime.now(UTC),
        )


@asynccontextmanager
async def _repeated(tell: Callable[[], Awaitable[None]], seconds: float) -> AsyncIterator[None]:
    """Now and then as long as the block lasts, and at its end."""

    async def go_on() -> None:
        while True:
            await tell()
            await asyncio.sleep(seconds)

    telling = asyncio.create_task(go_on())
    try:
        yield
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
    await tell()


@contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    """Two attempts that write at once would tear each other's lines."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        if (holder := take_lock(descriptor, socket.gethostname())) is not None:
            raise AttemptRunning(f"another attempt holds the batch: {holder}")
        yield
    finally:
        os.close(descriptor)


def _volume_full(words: str) -> Refused:
    return Refused.because(
        FailureReason.STORAGE_EXCEEDED,
        f"there is no space left on the artifacts volume: {words}",
        "enlarge the volume or delete what is no longer needed on it, and create a new BatchInference",
    )
