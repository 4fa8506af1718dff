"""A job's directory on a volume, and trainer processes on it, as the operator's Job has them."""

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.artifacts import Output
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource
from finetune_operator.contract.evaluation import EvaluationConfig
from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.places import PROGRESS_LOG_PATH, JobPaths
from finetune_operator.contract.tracking import TrackingConfig
from finetune_operator.contract.training import (
    JobIdentity,
    LoraConfig,
    Progress,
    ProgressBatch,
    StartingAdapter,
    TrainingConfig,
    TrainingParameters,
)
from tests.images.ml_environment import REPOSITORY

BASE_MODEL = "tiny-llama"
TOKEN = "a-token"  # noqa: S105 - of a test
POLL_SECONDS = 0.05


class HostedProcess:
    """An attempt that a `TrainerHost` has forked: as much of a `Popen` as the tests ask for."""

    def __init__(self, pid: int, exit_file: Path) -> None:
        self.pid, self._exit_file = pid, exit_file

    def poll(self) -> int | None:
        return int(self._exit_file.read_text()) if self._exit_file.exists() else None

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or math.inf)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"attempt {self.pid}", timeout or 0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class TrainerHost:
    """A process that has imported a backend's libraries and forks attempts; started with the first one."""

    def __init__(self, python: Path, backend: str = "Unsloth") -> None:
        command = [str(python), str(Path(__file__).with_name("trainer_host.py")), str(REPOSITORY / "trainer_image")]
        command.append(backend)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment_of_images()
        )

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path) -> HostedProcess:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the host's pipes are not open")
        exit_file = log_file.with_name(f"{log_file.name}.exit")
        exit_file.unlink(missing_ok=True)
        log_file.touch()
        order = {"arguments": list(arguments), "environment": dict(environment), "log": str(log_file)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).strip().isdigit():
            if not line:
                pytest.fail(f"the trainer's host ended with {self._process.wait()}")
        return HostedProcess(int(line), exit_file)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class TrainerProcess:
    """One attempt; its log is read line by line, as it grows."""

    process: "subprocess.Popen[bytes] | HostedProcess"
    log_file: Path

    def lines(self, message: str) -> list[dict[str, Any]]:
        lines = (line for line in self.log_file.read_text().splitlines() if line.startswith('{"time"'))
        return [entry for entry in map(json.loads, lines) if entry["message"] == message]

    def wait_for(self, message: str, timeout_seconds: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        while not (found := self.lines(message)):
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"no {message!r} in the log:\n{self.log_file.read_text()[-3000:]}")
            time.sleep(POLL_SECONDS)
        return found[0]

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.exit_code()

    def exit_code(self, timeout_seconds: float = 240) -> int:
        return self.process.wait(timeout_seconds)

    def expect(self, exit_code: int) -> "TrainerProcess":
        assert self.exit_code() == exit_code, self.log_file.read_text()[-3000:]
        return self


@dataclass
class Job:
    """A FineTuneJob as the trainer sees it."""

    python: Path
    base_model: Path
    artifacts: Path
    name: str
    config: TrainingConfig
    attempts: list[TrainerProcess] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    host: TrainerHost | None = None

    @property
    def paths(self) -> JobPaths:
        return JobPaths.of(self.config, str(self.artifacts))

    @property
    def adapter(self) -> Path:
        return Path(self.paths.adapter)

    def outcome(self) -> dict[str, Any]:
        """What the kubelet would read."""
        outcome: dict[str, Any] = json.loads((self.artifacts / f"{self.name}.termination").read_text())
        return outcome

    def start(self, *arguments: str) -> TrainerProcess:
        config_file = self.artifacts / f"{self.name}.json"
        config_file.write_text(self.config.model_dump_json(by_alias=True, exclude_none=True))
        command = ["--config", str(config_file), "--artifacts", str(self.artifacts)]
        command += ["--termination-message", str(self.artifacts / f"{self.name}.termination"), *arguments]
        log_file = self.artifacts / f"{self.name}-{len(self.attempts)}.log"
        environment = {"FINETUNE_INTERNAL_TOKEN": TOKEN} | self.environment
        if self.host:
            self.attempts.append(TrainerProcess(self.host.start(command, environment, log_file), log_file))
            return self.attempts[-1]
        command = [str(self.python), str(REPOSITORY / "trainer_image" / "train.py"), *command]
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment_of_images() | environment)
        self.attempts.append(TrainerProcess(process, log_file))
        return self.attempts[-1]

    def run(self, *arguments: str) -> TrainerProcess:
        return self.start(*arguments).expect(0)

    def kill_all(self) -> None:
        for attempt in self.attempts:
            attempt.process.kill()
            attempt.process.wait()


def environment_of_images() -> dict[str, str]:
    """The images' own variables; nothing of the tests' environment but what a process needs.

    Without the one that keeps no bytecode: images have it compiled, here each process would compile what it imports.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(REPOSITORY / "operator"),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def make_job(
    python: Path,
    base_model: Path,
    artifacts: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    *,
    method: str = "SFT",
    backend: str = "Unsloth",
    lora: LoraConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    outputs: Sequence[Output] = (),
    init_from: StartingAdapter | None = None,
    report_to: TrackingConfig | None = None,
    progress_url: str | None = None,
    host: TrainerHost | None = None,
    **training: Any,
) -> Job:
    """A job with the dataset that `prepare` would leave; every eighth row is held out."""
    defaults: dict[str, Any] = {"quantization": "none", "gradient_checkpointing": False, "max_seq_length": 256}
    parameters = TrainingParameters(**(defaults | {"batch_size": 8, "learning_rate": 2e-3, "epochs": 3.0} | training))
    config = TrainingConfig(
        job=JobIdentity(namespace="finetune", name=name, uid=f"uid-of-{name}"),
        model="plato",
        method=method,
        backend=backend,
        base_model_name=BASE_MODEL,
        base_model_path=str(base_model),
        dataset=DatasetConfig(source=RatingsSource()),
        lora=lora or LoraConfig(),
        training=parameters,
        evaluation=evaluation,
        outputs=tuple(outputs),
        init_from=init_from,
        report_to=report_to,
        progress_url=progress_url,
        progress_interval_seconds=0.2,
    )
    job = Job(python, base_model, artifacts, name, config, host=host)
    held_out = list(rows[::8])
    training_rows = [row for row in rows if row not in held_out]
    Path(job.paths.dataset).mkdir(parents=True)
    for path, part in ((job.paths.train_rows, training_rows), (job.paths.test_rows, held_out)):
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in part))
    report = DatasetReport(rows=len(training_rows), test_rows=len(held_out), digest="sha256:dataset")
    Path(job.paths.dataset_report).write_text(report.model_dump_json(by_alias=True))
    return job


def exporting(base: Path, *outputs: Output) -> TrainingConfig:
    """What a trainer is told that has only to export: the rest is as it comes."""
    return TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato", uid="uid"),
        model="plato",
        method="SFT",
        backend="Unsloth",
        base_model_name="tiny",
        base_model_path=str(base),
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(),
        outputs=outputs,
    )


class ProgressServer:
    """Takes what the trainer posts, as the api does."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[Progress] = []
        self.batches: list[int] = []
        self.logs: list[LogTail] = []
        self.tokens: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.tokens.add(self.headers.get("Authorization"))
                if self.path == PROGRESS_LOG_PATH:
                    outer.logs.append(LogTail.model_validate_json(body))
                    self.send_response(204)
                    self.end_headers()
                    return
                points = ProgressBatch.model_validate_json(body).points
                outer.received.extend(points)
                outer.batches.append(len(points))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
                """Quiet: pytest shows what was received."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/internal/v1/progress"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def progress_server(port: int = 0) -> Iterator[ProgressServer]:
    server = ProgressServer(port)
    try:
        yield server
    finally:
        server.close()
