"""One FineTuneJob's training at its provider: found or begun, followed to its end, its outcome kept."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import Refused
from finetune_operator.contract.places import ARTIFACTS_ROOT, TERMINATION_MESSAGE_FILE, JobPaths
from finetune_operator.contract.remote import RemoteConfig, RemoteModel
from finetune_operator.contract.training import Progress, TrainingConfig, TrainingResult
from finetune_operator.core import remote_training as rules
from finetune_operator.core.fine_tuning_api import (
    JobStatus,
    RemoteEvent,
    RemoteFile,
    RemoteJob,
    file_name,
    job_request,
    training_line,
)
from finetune_operator.logs import get_logger
from finetune_operator.providers.cluster import why_unwanted
from finetune_operator.providers.files import Record, exclusive, read_record, read_report, read_result, write_durably
from finetune_operator.providers.fine_tuning_client import FineTuningClient, Unanswered
from finetune_operator.providers.patience import Patience
from finetune_operator.store.reporting import Reporter

LOCK_PATIENCE = Patience(seconds=300, first_pause_seconds=0.5, longest_pause_seconds=5)
START_PATIENCE = Patience(seconds=300)
WAIT_PATIENCE = Patience(seconds=inf)
LEAVE_PATIENCE = Patience(seconds=30, longest_pause_seconds=5)  # of the pod's 60 seconds until it is killed

logger = get_logger(__name__)


class TryAgain(Exception):
    """The provider failed by its own fault; another attempt may go better."""


@dataclass(frozen=True)
class Surroundings:
    """Where the container finds things, and how patient it is; tests choose their own.

    The provider is asked for five minutes to take the job. Once it trains, nothing but the FineTuneJob's own deadline
    ends the waiting: what is paid for already must not be lost to a long outage.
    """

    artifacts: Path = Path(ARTIFACTS_ROOT)
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE)
    lock: Patience = LOCK_PATIENCE
    start: Patience = START_PATIENCE
    wait: Patience = WAIT_PATIENCE
    leave: Patience = LEAVE_PATIENCE
    settle_seconds: float = 20.0
    unwanted: Callable[[TrainingConfig, str], Awaitable[str | None]] = field(
        default=lambda config, workload: why_unwanted(config.job, workload)
    )


class RemoteTraining:
    """One FineTuneJob's training at its provider."""

    def __init__(
        self,
        config: TrainingConfig,
        remote: RemoteConfig,
        client: FineTuningClient,
        reporter: Reporter,
        surroundings: Surroundings,
        attempt: str,
    ) -> None:
        self._config = config
        self._remote = remote
        self._client = client
        self._reporter = reporter
        self._surroundings = surroundings
        self._attempt = attempt
        self._paths = JobPaths.of(config, str(surroundings.artifacts))
        self._record_file = Path(self._paths.remote)
        self._seen: set[str] = set()
        self._series: dict[int, Progress] = {}

    async def run(self) -> TrainingResult:
        """The job's result, made now or by an earlier attempt."""
        async with exclusive(Path(self._paths.lock), self._attempt, self._surroundings.lock):
            result_file = Path(self._paths.result)
            if result := read_result(result_file):
                logger.info("an earlier attempt is done; its result stands")
                return result
            report = read_report(Path(self._paths.dataset_report))
            record = await self._started(report)
            job = await self._ended(str(record.job), report)
            if job.status is not JobStatus.SUCCEEDED:
                await self._fail(job, record)
            result = await self._result(job, report)
            # Before the result is kept: no attempt that finds one comes here again.
            await self._tidy_up(record)
            write_durably(result, result_file)
            return result

    async def cancel(self, reason: str) -> None:
        """End the job at the provider in the little time that a pod has which must leave."""
        try:
            await self._end(self._surroundings.leave, reason)
        except (Refused, Unanswered) as error:
            logger.error("the job at the provider can't be cancelled by this pod", error=str(error), reason=reason)

    async def call_off(self) -> None:
        """End what earlier attempts have begun at the provider. Raises `Refused` or `Unanswered`.

        An attempt that was stopped while it created the job may have done so, and the provider tell of it only later.
        """
        reason = "the FineTuneJob has ended before its time"
        lock = Path(self._paths.lock)
        if not lock.parent.is_dir():
            logger.info("nothing was begun", reason=reason)
            return
        async with exclusive(lock, self._attempt, self._surroundings.lock):
            record = read_record(self._record_file)
            ended = await self._end(self._surroundings.start, reason)
            if ended is None and record.training_file and not record.job:
                await asyncio.sleep(self._surroundings.settle_seconds)
                await self._end(self._surroundings.start, reason)

    async def _end(self, patience: Patience, reason: str) -> RemoteJob | None:
        """The job that is cancelled now, also one whose id no attempt has learned; None where none runs."""
        record = read_record(self._record_file)

        async def cancelled() -> RemoteJob | None:
            job = await self._client.job(record.job) if record.job else await self._found(record)
            if job is None or job.status.is_final:
                return None
            return await self._client.cancel_job(job.id)

        job = await patience.insist(cancelled)
        logger.info("cancelled at the provider" if job else "nothing to cancel at the provider", reason=reason)
        await self._tidy_up(record)
        return job

    async def _started(self, report: DatasetReport) -> Record:
        """The record with the id of the one job, found or made."""
        record = read_record(self._record_file)
        if record.job:
            logger.info("going on with the job of an earlier attempt", job=record.job)
            return record
        if record.training_file is None:
            training = await self._uploaded("train", Path(self._paths.train_rows))
            record = self._kept(record.model_copy(update={"training_file": training.id}))
        if record.validation_file is None and report.test_rows:
            validation = await self._uploaded("test", Path(self._paths.test_rows))
            record = self._kept(record.model_copy(update={"validation_file": validation.id}))
        job = await self._surroundings.start.insist(lambda: self._found_or_created(record))
        return self._kept(record.model_copy(update={"job": job.id}))

    def _kept(self, record: Record) -> Record:
        write_durably(record, self._record_file)
        return record

    async def _uploaded(self, part: str, rows: Path) -> RemoteFile:
        name = file_name(self._config.job.uid, part)
        with self._as_upload(rows) as (path, characters):
            size_bytes = path.stat().st_size
            if part == "train":
                self._log_estimate(characters)

            async def upload() -> RemoteFile:
                async for file in self._client.files():
                    if file.filename == name and file.bytes == size_bytes:
                        return file
                return await self._client.upload(path, name)

            file = await self._surroundings.start.insist(upload)
        logger.info("uploaded", part=part, file=file.id, bytes=size_bytes)
        return file

    @contextmanager
    def _as_upload(self, rows: Path) -> Iterator[tuple[Path, int]]:
        """The rows as the provider wants them, in a file for as long as it is needed, and their characters."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / rows.name
            characters = 0
            with rows.open("rb") as source, path.open("wb") as target:
                for line in source:
                    characters += len(line.decode())
                    target.write(training_line(line, self._config.method))
            yield path, characters

    def _log_estimate(self, characters: int) -> None:
        tokens = rules.estimated_tokens(characters, self._config.training.epochs)
        cost = rules.cost(tokens, self._remote.price_per_million_tokens)
        logger.info("estimate", tokens=tokens, cost=None if cost is None else f"{cost} {self._remote.currency}")

    async def _found_or_created(self, record: Record) -> RemoteJob:
        """Looked for before each try to create it: the answer to an earlier try may have been lost."""
        job = await self._found(record)
        if job:
            logger.info("found the job of an earlier attempt", job=job.id)
            return job
        body = job_request(self._config, str(record.training_file), record.validation_file)
        job = await self._client.create_job(body)
        logger.info("created", job=job.id, model=self._remote.model, suffix=self._remote.suffix)
        return job

    async def _found(self, record: Record) -> RemoteJob | None:
        uid = self._config.job.uid
        async for job in self._client.jobs(uid):
            if job.id not in record.abandoned and rules.is_ours(job, uid, record.training_file):
                return job
        return None

    async def _ended(self, job_id: str, report: DatasetReport) -> RemoteJob:
        """Follow the job to its end, telling on the way what its events say."""
        status: JobStatus | None = None
        while True:
            job = await self._surroundings.wait.insist(lambda: self._client.job(job_id))
            if job.status is not status:
                status = job.status
                logger.info("status", job=job_id, status=status.value)
            for event in (events := await self._surroundings.wait.insist(lambda: self._new_events(job_id))):
                logger.info("event", job=job_id, level_there=event.level, message=event.message)
            await self._report(events, job, report)
            if job.status.is_final:
                return job
            await asyncio.sleep(self._remote.poll_seconds)

    async def _new_events(self, job_id: str) -> list[RemoteEvent]:
        """What was not seen yet, the oldest first."""
        found: list[RemoteEvent] = []
        async for event in self._client.events(job_id):
            if event.id in self._seen:
                break
            found.append(event)
        self._seen.update(event.id for event in found)
        found.reverse()
        return sorted(found, key=lambda event: event.created_at)

    async def _report(self, events: list[RemoteEvent], job: RemoteJob, report: DatasetReport) -> None:
        training = self._config.training
        points = rules.measurements(
            events,
            self._config.job,
            self._attempt,
            total_steps=rules.estimated_steps(report.rows, training.batch_size, training.epochs),
            total_epochs=training.epochs,
            finish=job.estimated_finish,
        )
        self._series.update({point.step: point for point in points})
        await self._reporter.report(points)

    async def _fail(self, job: RemoteJob, record: Record) -> None:
        """Raises `Refused`, or `TryAgain` once the job is written off, so that the next attempt makes another."""
        failure = rules.failure_of(job)
        if failure is None:
            self._kept(record.model_copy(update={"job": None, "abandoned": (*record.abandoned, job.id)}))
            said = job.error.message if job.error else None
            raise TryAgain(f"job {job.id} failed by the provider's own fault: {said}")
        await self._tidy_up(record)
        raise Refused(failure)

    async def _result(self, job: RemoteJob, report: DatasetReport) -> TrainingResult:
        if not job.fine_tuned_model:
            raise TryAgain(f"job {job.id} succeeded, but names no model")
        series = [self._series[step] for step in sorted(self._series)]
        losses = [point.loss for point in series if point.loss is not None]
        steps = series[-1].step if series else 0
        return TrainingResult(
            remote=RemoteModel(
                base_url=self._remote.base_url,
                model=job.fine_tuned_model,
                job=job.id,
                trained_tokens=job.trained_tokens,
                cost=rules.cost(job.trained_tokens, self._remote.price_per_million_tokens),
                currency=self._remote.currency,
            ),
            final_loss=losses[-1] if losses else None,
            best_loss=min(losses, default=None),
            test_loss=await self._held_out_loss(job.id),
            base_test_loss=None,
            steps=steps,
            epochs=self._config.training.epochs,
            train_seconds=max(0, (job.finished_at or job.created_at) - job.created_at),
            tokens=job.trained_tokens,
            dataset=report,
        )

    async def _held_out_loss(self, job_id: str) -> float | None:
        """Of the last checkpoint; of the last event that tells it, where the provider has no checkpoints."""
        measured = [point.eval_loss for _, point in sorted(self._series.items()) if point.eval_loss is not None]
        try:
            checkpoints = [checkpoint async for checkpoint in self._client.checkpoints(job_id)]
        except (Refused, Unanswered) as error:
            logger.warning("no checkpoints", job=job_id, error=str(error))
            checkpoints = []
        for checkpoint in sorted(checkpoints, key=lambda checkpoint: checkpoint.step_number, reverse=True):
            metrics = checkpoint.metrics
            loss = metrics.full_valid_loss if metrics.full_valid_loss is not None else metrics.valid_loss
            if loss is not None:
                return loss
        return measured[-1] if measured else None

    async def _tidy_up(self, record: Record) -> None:
        """The training data leave the provider with the training; what can't be deleted is only told."""
        for file_id in (record.training_file, record.validation_file):
            if file_id is None:
                continue
            try:
                await self._client.delete_file(file_id)
            except (Refused, Unanswered) as error:
                logger.warning("the upload stays at the provider", file=file_id, error=str(error))
