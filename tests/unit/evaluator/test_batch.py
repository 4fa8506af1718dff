"""What a batch inference asks, row by row, and what it writes of the answers and of the rows that have none."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.batch_inference import SamplingConfig
from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.batch_inference import answer_of
from finetune_operator.evaluator.batch import run
from finetune_operator.evaluator.engine import EngineRefused
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
from tests.unit.evaluator.engine_double import EngineDouble
from tests.unit.store.ratings_database import rating, write_ratings

pytestmark = pytest.mark.usefixtures("datasets")


def left_in(directory: Path) -> set[str]:
    """Names in the batch's directory."""
    path = Path(paths_in(directory).directory)
    return {file.name for file in path.iterdir()} if path.exists() else set()


class TestResults:
    async def test_there_is_a_line_a_row_in_the_order_of_the_rows(self, tmp_path: Path) -> None:
        report = await asked(double(delay_seconds={TUNED: 0.001}), tmp_path)
        lines = lines_of(tmp_path)
        assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{number}" for number in range(1, 13)]
        assert [str(answer_of(line)).strip() for line in lines] == list(ANSWERS.values())
        assert (report.rows, report.files[0].rows, report.files[0].failed) == (12, 12, 0)

    async def test_the_manifest_has_the_sum_of_each_file(self, tmp_path: Path) -> None:
        report = await asked(double(), tmp_path, TUNED, BASE)
        directory = Path(paths_in(tmp_path).directory)
        assert manifest_in(tmp_path) == report
        for file in report.files:
            content = (directory / file.name).read_bytes()
            assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert [file.name for file in report.files] == ["results/plato-v2.jsonl", "results/org%2Ftiny.jsonl"]
        assert left_in(tmp_path) == {"lock", "requests.jsonl", "results", "manifest.json"}

    async def test_two_models_get_the_same_rows(self, tmp_path: Path) -> None:
        await asked(double(), tmp_path, TUNED, BASE)
        first, second = ([json.loads(line) for line in lines_of(tmp_path, name)] for name in (TUNED, BASE))
        assert [row["custom_id"] for row in first] == [row["custom_id"] for row in second]
        assert {row["response"]["body"]["model"] for row in second} == {BASE}

    async def test_tokens_are_the_engines(self, tmp_path: Path) -> None:
        (file,) = (await asked(double(), tmp_path)).files
        # `<user> 1+1? <end> <assistant>`, and three words with their end.
        assert (file.prompt_tokens, file.completion_tokens) == (12 * 4, 12 * 4)

    async def test_parameters_are_those_of_the_spec(self, tmp_path: Path) -> None:
        engine = double()
        await asked(engine, tmp_path, sampling=SamplingConfig(max_tokens=7, temperature=0.5, top_p=0.9, seed=3))
        told = [{name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed")} for body in engine.asked]
        assert told == [{"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3}] * 12

    @pytest.mark.parametrize("at_once", [1, 5])
    async def test_no_more_are_asked_at_once_than_allowed(self, tmp_path: Path, at_once: int) -> None:
        engine = double(delay_seconds={TUNED: 0.005})
        await asked(engine, tmp_path, max_concurrent_requests=at_once)
        assert engine.most_at_once == at_once


class TestRows:
    async def test_only_the_first_are_asked(self, tmp_path: Path) -> None:
        report = await asked(double(), tmp_path, limit=5)
        assert report.rows == 5

    async def test_of_records_with_answers_all_before_the_last_is_asked(self, tmp_path: Path) -> None:
        write_rows(tmp_path, {"instruction": "1+1?", "output": "two"}, {"instruction": "2+2?", "output": "four"})
        dataset = config_of(EngineDouble({})).dataset.model_copy(update={"format": "Alpaca"})
        engine = double()
        await asked(engine, tmp_path, dataset=dataset, prompts_alone=False)
        assert sorted(questions_asked(engine)) == ["1+1?", "2+2?"]

    async def test_a_rated_prompt_is_asked_once(self, tmp_path: Path) -> None:
        rated = [rating(1, prompt="1+1?"), rating(2, prompt="1+1?", response="2, of course"), rating(3, prompt="2+2?")]
        url = write_ratings(tmp_path / "ratings.db", rated)
        dataset = config_of(EngineDouble({})).dataset.model_copy(update={"source": RatingsSource()})
        engine = double()
        async with engine.running():
            around = surroundings(tmp_path, **{DATABASE_URL_VARIABLE: url})
            report = await asyncio.to_thread(run, config_of(engine, dataset=dataset), around)
        assert sorted(questions_asked(engine)) == ["1+1?", "2+2?"]
        assert report.rows == 2

    async def test_a_row_keeps_its_own_custom_id(self, tmp_path: Path) -> None:
        write_rows(tmp_path, {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "1+1?"}]}})
        await asked(double(), tmp_path)
        assert [json.loads(line)["custom_id"] for line in lines_of(tmp_path)] == ["a"]

    @pytest.mark.parametrize(
        ("rows", "reason", "message"),
        [
            ([], FailureReason.DATASET_EMPTY, "no row that asks anything"),
            ([{"prompt": "x"}, {"answer": "y"}], FailureReason.DATASET_INVALID, "row 2 of q.jsonl is not a Prompts"),
            ([{"prompt": "x", "custom_id": "a"}] * 2, FailureReason.DATASET_INVALID, "row 2 has the custom_id 'a'"),
        ],
        ids=["no rows", "no prompt", "the same custom_id twice"],
    )
    async def test_rows_that_ask_nothing_are_told(
        self, tmp_path: Path, rows: list[Any], reason: FailureReason, message: str
    ) -> None:
        write_rows(tmp_path, *rows)
        with pytest.raises(Refused) as refusal:
            await asked(double(), tmp_path)
        assert refusal.value.failure.reason is reason
        assert message in refusal.value.failure.message
        assert "requests.jsonl" not in left_in(tmp_path)


class TestRefusals:
    async def test_a_row_that_the_engine_refuses_is_a_line_of_its_own(self, tmp_path: Path) -> None:
        report = await asked(double(refuses=frozenset({"3+3?"})), tmp_path)
        (file,) = report.files
        told = json.loads(lines_of(tmp_path)[3])
        assert told["response"]["status_code"] == 400
        assert (file.rows, file.failed) == (12, 1)
        assert "maximum context length" in str(file.first_error)

    async def test_a_wrong_key_ends_it(self, tmp_path: Path) -> None:
        engine = double()
        async with engine.running():
            with pytest.raises(EngineRefused, match="answered 401"):
                await asyncio.to_thread(run, config_of(engine), surroundings(tmp_path, VLLM_API_KEY="another"))

    @pytest.mark.parametrize("status", [404, 500, 503])
    async def test_what_may_pass_is_asked_again(self, tmp_path: Path, status: int) -> None:
        report = await asked(double(troubles=[status, status]), tmp_path)
        assert report.files[0].failed == 0
