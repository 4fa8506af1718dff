"""The process of a batch inference: its exit codes and its termination message."""

import asyncio
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from finetune_operator.contract.batch_inference import BatchInferenceConfig, BatchReport
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.evaluator.batch import Surroundings, main
from finetune_operator.evaluator.batch_results import PartialResults
from tests.unit.evaluator.batches import ANSWERS, BASE, TUNED, config_of, double, paths_in, surroundings
from tests.unit.evaluator.engine_double import EngineDouble

pytestmark = pytest.mark.usefixtures("datasets")


class TestProcess:
    """`finetune-operator batch` from its config to its termination message."""

    def run(self, directory: Path, config: BatchInferenceConfig, **environment: str) -> tuple[int, str]:
        file = directory / "config.json"
        file.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        around = surroundings(directory, **environment)
        return main(file, around), around.termination_log.read_text() if around.termination_log.exists() else ""

    async def test_the_report_is_the_termination_message(self, tmp_path: Path) -> None:
        engine = double()
        async with engine.running():
            code, message = await asyncio.to_thread(self.run, tmp_path, config_of(engine, TUNED, BASE))
        assert (code, BatchReport.model_validate_json(message).rows) == (0, 12)
        assert len(message.encode()) <= 4096

    async def test_a_model_that_answers_no_row_ends_it_for_good(self, tmp_path: Path) -> None:
        engine = double(refuses=frozenset(ANSWERS))
        async with engine.running():
            code, message = await asyncio.to_thread(self.run, tmp_path, config_of(engine))
        failure = Failure.model_validate_json(message)
        assert (code, failure.reason) == (42, FailureReason.ENGINE_REFUSED)
        assert "answered none of 12 rows" in failure.message
        assert "spec.parameters.maxTokens" in failure.remedy

    def test_an_engine_that_is_away_is_left_to_another_try(self, tmp_path: Path) -> None:
        code, message = self.run(tmp_path, config_of(EngineDouble({}, url="http://127.0.0.1:9")))
        assert (code, Failure.model_validate_json(message).reason) == (1, FailureReason.ENGINE_UNAVAILABLE)

    def test_another_attempt_is_left_alone(self, tmp_path: Path) -> None:
        lock = Path(paths_in(tmp_path).lock)
        lock.parent.mkdir(parents=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            code, message = self.run(tmp_path, config_of(EngineDouble({})))
        assert (code, message) == (75, "")

    @pytest.mark.parametrize("where", ["requests", "results"])
    async def test_a_full_volume_is_the_users_to_enlarge(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        if where == "requests":
            monkeypatch.setattr("finetune_operator.evaluator.batch_requests.durable.sync", full)
        else:
            monkeypatch.setattr(PartialResults, "add", full)
        engine = double()
        async with engine.running():
            code, message = await asyncio.to_thread(self.run, tmp_path, config_of(engine))
        failure = Failure.model_validate_json(message)
        assert (code, failure.reason) == (43, FailureReason.STORAGE_EXCEEDED)
        assert "enlarge the volume" in failure.remedy

    def test_a_config_of_another_release_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        assert main(tmp_path / "config.json", surroundings(tmp_path)) == 42


def test_the_environment_is_the_processes_own() -> None:
    around: Mapping[str, str] = Surroundings().environment
    assert around is os.environ
