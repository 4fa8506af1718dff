"""However an attempt at a batch inference ended, the next one goes on from there."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.evaluator.batch import run
from finetune_operator.evaluator.batch_results import PartialResults
from finetune_operator.evaluator.engine import EngineRefused, EngineUnavailable
from tests.unit.evaluator.batches import (
    ANSWERS,
    BASE,
    TUNED,
    asked,
    config_of,
    double,
    lines_of,
    manifest_in,
    paths_in,
    questions_asked,
    surroundings,
    write_rows,
)
from tests.unit.evaluator.engine_double import KEY, EngineDouble
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("datasets")


def leave_partial(directory: Path, content: bytes) -> None:
    """As a killed attempt does."""
    partial = Path(paths_in(directory).partial_answers(TUNED))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content)


class TestGoingOn:
    """However an attempt ended, the next one asks only what has no answer yet."""

    async def test_what_was_answered_is_not_asked_again(self, tmp_path: Path) -> None:
        away = double(troubles=[])
        async with away.running():
            config = config_of(away, max_concurrent_requests=1)
            requests = 0

            def says(model: str, messages: list[dict[str, str]]) -> str:
                nonlocal requests
                requests += 1
                if requests > 5:
                    away.troubles.extend([503] * 1000)
                return ANSWERS[messages[-1]["content"]]

            away.says = says  # type: ignore[method-assign]
            with pytest.raises(EngineUnavailable):
                await asyncio.to_thread(run, config, surroundings(tmp_path))
        known = questions_asked(away)
        back = double()
        await asked(back, tmp_path)
        assert set(known) | set(questions_asked(back)) == set(ANSWERS)
        assert not set(known) & set(questions_asked(back))
        assert len(lines_of(tmp_path)) == 12

    @pytest.mark.parametrize(
        "torn",
        [b'{"id": "batch_req_11", "custom_id"', b"\0" * 40, b'{"id": "batch_req_99"}\n', b"\n"],
        ids=["half a line", "a hole", "another file's line", "an empty line"],
    )
    async def test_a_torn_line_is_asked_again(self, tmp_path: Path, torn: bytes) -> None:
        whole = tmp_path / "whole"
        await asked(double(), whole)
        leave_partial(tmp_path, b"".join(lines_of(whole)[:7]) + torn)
        engine = double()
        report = await asked(engine, tmp_path)
        assert len(engine.asked) == 5
        assert lines_of(tmp_path) == lines_of(whole)
        assert report.digest == manifest_in(whole).digest

    async def test_a_line_that_is_there_twice_counts_once(self, tmp_path: Path) -> None:
        whole = tmp_path / "whole"
        await asked(double(), whole)
        file = tmp_path / "partial.jsonl"
        lines = lines_of(whole)
        file.write_bytes(lines[0] + lines[1] + lines[0])
        with PartialResults(file, 12) as results:
            assert results.done == 2
        assert file.read_bytes() == lines[0] + lines[1]

    async def test_another_dataset_does_not_change_what_is_asked(self, tmp_path: Path) -> None:
        """Of a database, say, that has grown since the first attempt."""
        engine = double()
        async with engine.running():
            config = config_of(engine)
            around = replace(surroundings(tmp_path), environment={"VLLM_API_KEY": "wrong"})
            with pytest.raises(EngineRefused):
                await asyncio.to_thread(run, config, around)
        write_rows(tmp_path, {"prompt": "another"})
        assert (await asked(double(), tmp_path)).rows == 12

    async def test_a_finished_batch_is_told_again_without_its_engine(self, tmp_path: Path) -> None:
        report = await asked(double(), tmp_path)
        again = config_of(EngineDouble({}, url="http://127.0.0.1:9"))
        assert await asyncio.to_thread(run, again, surroundings(tmp_path)) == report

    async def test_killed_at_any_moment_the_next_attempt_has_each_row_once(self, tmp_path: Path) -> None:
        engine = double(delay_seconds={TUNED: 0.02})
        async with engine.running():
            file = tmp_path / "config.json"
            file.write_text(config_of(engine, BASE, TUNED).model_dump_json(by_alias=True, exclude_none=True))
            script = (
                "import sys; from pathlib import Path; from finetune_operator.evaluator import batch, batch_requests; "
                "batch_requests.DATASETS_ROOT = sys.argv[2]; root = Path(sys.argv[2]); "
                "around = batch.Surroundings(artifacts=root / 'artifacts', termination_log=root / 'log'); "
                "sys.exit(batch.main(Path(sys.argv[1]), around))"
            )
            argv = (sys.executable, "-c", script, str(file), str(tmp_path))
            environment = os.environ | {"VLLM_API_KEY": KEY}
            for answered in (3, 14, 20):
                process = await asyncio.create_subprocess_exec(
                    *argv, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
                )
                await eventually(lambda count=answered: len(engine.asked) >= count, 30)  # type: ignore[misc]
                process.send_signal(signal.SIGKILL)
                await process.wait()
            process = await asyncio.create_subprocess_exec(*argv, env=environment)
            assert await process.wait() == 0
        report = BatchReport.model_validate_json((tmp_path / "log").read_bytes())
        assert [file.rows for file in report.files] == [12, 12]
        for name in (BASE, TUNED):
            ids = [json.loads(line)["custom_id"] for line in lines_of(tmp_path, name)]
            assert ids == [f"row-{number}" for number in range(1, 13)]
        # At most those that were on their way when it was killed were asked twice.
        assert len(engine.asked) <= 24 + 3 * 3
