"""The most memory that an engine takes, by asking one that speaks vLLM's API."""

from pathlib import Path

import pytest

from finetune_operator.contract.evaluation import EngineMemory, MemoryOf
from finetune_operator.contract.served_evaluation import SaturationConfig
from finetune_operator.evaluator import memory
from tests.unit.evaluator.test_evaluator import BASE, ROWS, TUNED, double, measured, rows_file


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "INTERVAL_SECONDS", 0.01)


async def test_it_is_the_most_that_was_seen_while_a_model_was_asked(tmp_path: Path) -> None:
    engine = double(takes_bytes=2_000_000_000, delay_seconds={TUNED: 0.05})
    report = await measured(engine, rows_file(tmp_path, ROWS), concurrency=1)
    # Of the base model, whose answers take no time, there is the look at the end of them at least.
    assert report.base_memory is not None
    assert report.base_memory.size_bytes in {1_000_000_000, 2_000_000_000}
    assert report.fine_tuned_memory == EngineMemory(of=MemoryOf.CONTAINER, size_bytes=2_000_000_000)


async def test_the_search_for_the_limit_is_looked_at_too(tmp_path: Path) -> None:
    slow = {BASE: 0.05, TUNED: 0.05}
    wanted = SaturationConfig(step_seconds=0, max_concurrency=1)
    report = await measured(double(takes_bytes=6, delay_seconds=slow), rows_file(tmp_path, ROWS), saturation=wanted)
    for found in (report.base_memory, report.fine_tuned_memory):
        assert found == EngineMemory(of=MemoryOf.CONTAINER, size_bytes=6)


async def test_of_an_engine_that_does_not_tell_it_is_unknown_and_all_else_is_measured(tmp_path: Path) -> None:
    report = await measured(double(), rows_file(tmp_path, ROWS))
    assert (report.base_memory, report.fine_tuned_memory) == (None, None)
    assert report.fine_tuned_speed is not None
