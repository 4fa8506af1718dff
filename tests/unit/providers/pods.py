"""A FineTuneJob's directory as `prepare` leaves it, and the pods that train on it, each a process of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import PROVIDER_KEY_VARIABLE, JobPaths
from finetune_operator.contract.remote import RemoteConfig
from finetune_operator.contract.training import (
    JobIdentity,
    LoraConfig,
    TrainingConfig,
    TrainingParameters,
    TrainingResult,
)
from finetune_operator.providers.files import Record, read_record
from finetune_operator.providers.train_remote import attempt
from tests.unit.providers.openai_server import API_KEY, OpenAIServer
from tests.unit.providers.remote_pod import surroundings_in

REPOSITORY = Path(__file__).parents[3]
MODEL = "gpt-4.1-mini-2025-04-14"
UID = "0b0e2d5c-7b0c-4f0e-9f0a-1f2e3d4c5b6a"
DEADLINE_SECONDS = 30
REFUSED = EXIT_CODES[FailureReason.PROVIDER_REFUSED]

started: list[asyncio.subprocess.Process] = []
"""By the test that runs now."""


def conversation(number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"What is virtue, the {number}th time? é"},
            {"role": "assistant", "content": f"Answer {number}"},
        ]
    }


def preference(number: int) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": f"Question {number}"}],
        "chosen": [{"role": "assistant", "content": "Good"}],
        "rejected": [{"role": "assistant", "content": "Bad"}],
    }


def training_config(server: OpenAIServer, method: Literal["SFT", "DPO"] = "SFT", **remote: Any) -> TrainingConfig:
    """What the operator would tell the pod; `remote` are changes of the provider's part."""
    settings = {"base_url": server.base_url, "model": MODEL, "suffix": "plato", "poll_seconds": 0.02}
    return TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato-1", uid=UID),
        model="plato",
        method=method,
        backend="OpenAI",
        base_model_name=MODEL,
        remote=RemoteConfig.model_validate(settings | remote),
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(batch_size=2),
    )


class RemoteJobDirectory:
    """One FineTuneJob whose dataset is prepared; `settings` are further variables of its processes."""

    def __init__(
        self,
        directory: Path,
        config: TrainingConfig,
        *,
        rows: int = 20,
        test_rows: int = 2,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.config = config
        self._settings = dict(settings or {})
        self.paths = JobPaths.of(config, str(directory / "artifacts"))
        Path(self.paths.dataset).mkdir(parents=True)
        make = preference if config.method == "DPO" else conversation
        lines = [json.dumps(make(number), ensure_ascii=False) + "\n" for number in range(rows)]
        Path(self.paths.train_rows).write_text("".join(lines))
        Path(self.paths.test_rows).write_text("".join(lines[:test_rows]))
        report = DatasetReport(rows=rows, test_rows=test_rows, digest="sha256:" + "d" * 64)
        Path(self.paths.dataset_report).write_text(report.model_dump_json(by_alias=True))
        (directory / "training.json").write_text(config.model_dump_json(by_alias=True))

    @property
    def train_rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self.paths.train_rows).read_text().splitlines()]

    @property
    def record(self) -> Record:
        return read_record(Path(self.paths.remote))

    def environment(self, key: str | None = API_KEY) -> dict[str, str]:
        return {"POD_NAME": "plato-1-abcde"} | ({} if key is None else {PROVIDER_KEY_VARIABLE: key})

    async def run(self, key: str | None = API_KEY, *, cancel: bool = False) -> "Ending":
        """An attempt to its end, in this process."""
        place = surroundings_in(self.directory)
        code = await asyncio.wait_for(
            attempt(self.directory / "training.json", place, self.environment(key), cancel=cancel), DEADLINE_SECONDS
        )
        return Ending(self.directory, code)

    async def start(self, key: str | None = API_KEY) -> "Pod":
        """An attempt as a process of its own, which can be killed."""
        place = {"PATH": os.environ["PATH"], "HOME": str(self.directory)} | self._settings
        path = {"PYTHONPATH": os.pathsep.join((str(REPOSITORY / "operator"), str(REPOSITORY)))}
        with (self.directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.unit.providers.remote_pod", str(self.directory)),
                env=place | path | self.environment(key),
                cwd=REPOSITORY,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
            )
        started.append(process)
        return Pod(self.directory, process)


class Ending:
    """How an attempt ended, as the operator would read it."""

    def __init__(self, directory: Path, exit_code: int) -> None:
        self._directory = directory
        self.exit_code = exit_code

    @property
    def message(self) -> str:
        file = self._directory / "termination-log"
        return file.read_text() if file.exists() else ""

    @property
    def result(self) -> TrainingResult:
        return TrainingResult.model_validate_json(self.message)

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json(self.message)


class Pod:
    """One process, by its id."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self._directory = directory
        self._process = process

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    async def ended(self) -> Ending:
        """How it ended, within the deadline."""
        try:
            code = await asyncio.wait_for(self._process.wait(), DEADLINE_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"the pod did not end within {DEADLINE_SECONDS} s:\n{self.log}") from None
        return Ending(self._directory, code)

    async def killed(self) -> None:
        """As by a node that loses power."""
        self._process.kill()
        await self._process.wait()

    def told_to_leave(self) -> None:
        self._process.send_signal(signal.SIGTERM)
