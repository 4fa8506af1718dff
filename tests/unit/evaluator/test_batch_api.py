"""What the api is told of a batch inference: its progress, and the pairs of answers that people vote on."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from finetune_operator.contract.batch_answers import TEXT_MAX_CHARACTERS, TOLD_ROWS, BatchAnswer, BatchAnswers
from finetune_operator.contract.batch_inference import VotingConfig
from finetune_operator.contract.dataset import StoredSource
from finetune_operator.contract.experiments import AnswerPair, AnswerPairs
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import INTERNAL_TOKEN_VARIABLE
from finetune_operator.contract.training import Progress, ProgressBatch
from finetune_operator.core import answer_pairs
from finetune_operator.evaluator.batch import run
from tests.unit.evaluator.batches import (
    BASE,
    BATCH,
    TUNED,
    asked,
    config_of,
    double,
    manifest_in,
    questions_asked,
    surroundings,
    write_rows,
)
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("datasets")


@dataclass
class ApiDouble:
    """What the api is told; `troubles` are statuses with which the next requests of pairs end instead."""

    troubles: list[int] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    pairs: dict[str, AnswerPair] = field(default_factory=dict)
    names: set[tuple[str, str]] = field(default_factory=set)
    answers: dict[tuple[str, int], BatchAnswer] = field(default_factory=dict)
    kept: bytes = b""
    """The file that it keeps."""
    puts: int = 0
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ApiDouble"]:
        application = web.Application()
        application.router.add_post("/progress/batch", self._progress)
        application.router.add_put("/pairs", self._pairs)
        application.router.add_put("/answers", self._answers)
        application.router.add_get("/kept", self._kept)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _progress(self, request: web.Request) -> web.Response:
        self.progress.extend(ProgressBatch.model_validate_json(await request.text()).points)
        return web.Response(status=204)

    async def _answers(self, request: web.Request) -> web.Response:
        if self.troubles:
            return web.Response(status=self.troubles.pop(0))
        sent = BatchAnswers.model_validate_json(await request.text())
        assert sent.batch == BATCH
        self.answers |= {(answer.served_name, answer.number): answer for answer in sent.answers}
        return web.Response(status=204)

    async def _kept(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.Response(body=self.kept, headers={"ETag": f'"{hashlib.sha256(self.kept).hexdigest()}"'})

    async def _pairs(self, request: web.Request) -> web.Response:
        if self.troubles:
            return web.Response(status=self.troubles.pop(0))
        sent = AnswerPairs.model_validate_json(await request.text())
        self.puts += 1
        self.names.add((sent.baseline_served_name, sent.candidate_served_name))
        self.pairs |= {pair.id: pair for pair in sent.pairs}
        return web.Response(status=204)


class TestProgress:
    async def test_the_api_is_told_of_the_rows_of_all_models(self, tmp_path: Path) -> None:
        engine = double(refuses=frozenset({"3+3?"}), delay_seconds={TUNED: 0.005})
        async with ApiDouble().running() as api:
            await asked(engine, tmp_path, TUNED, BASE, progress_url=f"{api.url}/progress")
        last = api.progress[-1]
        assert (last.job, last.attempt, last.step, last.total_steps, last.failed_rows) == (BATCH, "batch-1", 24, 24, 2)
        assert [point.step for point in api.progress] == sorted(point.step for point in api.progress)

    async def test_an_api_that_is_away_holds_nothing_up(self, tmp_path: Path) -> None:
        assert (await asked(double(), tmp_path, progress_url="http://127.0.0.1:9/progress")).rows == 12


class TestDatasets:
    """What the api keeps is fetched from it."""

    async def test_an_exported_dataset_is_asked_without_its_answers(self, tmp_path: Path) -> None:
        turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "two"}]
        engine = double()
        async with ApiDouble(kept=json.dumps({"messages": turns}).encode()).running() as api, engine.running():
            path = f"chatml-{'0' * 32}/train.jsonl"
            source = StoredSource(path=path, url=f"{api.url}/kept")
            dataset = config_of(engine).dataset.model_copy(update={"source": source})
            config = config_of(engine, dataset=dataset, prompts_alone=False)
            around = surroundings(tmp_path, **{INTERNAL_TOKEN_VARIABLE: "secret"})
            report = await asyncio.to_thread(run, config, around)
        assert (report.rows, questions_asked(engine)) == (1, ["1+1?"])


class TestAnswers:
    """The first answers of each model are told to the api, where people can read them."""

    async def test_of_each_model_and_row(self, tmp_path: Path) -> None:
        engine = double(refuses=frozenset({"3+3?"}))
        async with ApiDouble().running() as api:
            await asked(engine, tmp_path, TUNED, BASE, answers_url=f"{api.url}/answers")
        assert len(api.answers) == 24
        first, refused = api.answers[TUNED, 2], api.answers[BASE, 4]
        assert (first.custom_id, first.prompt, str(first.answer).strip()) == ("row-2", "1+1?", "it is 2")
        assert refused.answer is None
        assert "maximum context length" in str(refused.error)

    async def test_no_more_than_the_api_keeps(self, tmp_path: Path) -> None:
        write_rows(tmp_path, *({"prompt": f"{number}?"} for number in range(TOLD_ROWS + 10)))
        async with ApiDouble().running() as api:
            await asked(double(), tmp_path, answers_url=f"{api.url}/answers")
        assert sorted(number for _, number in api.answers) == list(range(1, TOLD_ROWS + 1))

    async def test_while_the_batch_runs(self, tmp_path: Path) -> None:
        engine = double(delay_seconds={TUNED: 0.05})
        async with ApiDouble().running() as api, engine.running():
            config = config_of(engine, answers_url=f"{api.url}/answers", max_concurrent_requests=1)
            running = asyncio.create_task(asyncio.to_thread(run, config, surroundings(tmp_path)))
            await eventually(lambda: 0 < len(api.answers) < 12, 5)
            await running
        assert len(api.answers) == 12

    async def test_a_long_text_is_cut_and_says_so(self, tmp_path: Path) -> None:
        write_rows(tmp_path, {"prompt": "long " * TEXT_MAX_CHARACTERS}, {"prompt": "1+1?"})
        async with ApiDouble().running() as api:
            await asked(double(), tmp_path, answers_url=f"{api.url}/answers")
        long, short = (api.answers[TUNED, number] for number in (1, 2))
        assert (len(long.prompt), long.shortened, short.shortened) == (TEXT_MAX_CHARACTERS, True, False)

    async def test_an_api_that_comes_back_has_all(self, tmp_path: Path) -> None:
        async with ApiDouble(troubles=[503] * 5).running() as api:
            await asked(double(), tmp_path, answers_url=f"{api.url}/answers")
        assert len(api.answers) == 12

    @pytest.mark.parametrize("troubles", [[503] * 1000, [401] * 1000], ids=["away", "another token"])
    async def test_without_the_api_the_batch_succeeds_all_the_same(self, tmp_path: Path, troubles: list[int]) -> None:
        async with ApiDouble(troubles=troubles).running() as api:
            report = await asked(double(), tmp_path, answers_url=f"{api.url}/answers")
        assert (report.rows, api.answers) == (12, {})


def voting(url: str, max_pairs: int = 100) -> VotingConfig:
    return VotingConfig(url=f"{url}/pairs", max_pairs=max_pairs)


class TestVoting:
    """The pairs of answers become comparisons of an ABTest, whose candidate is the first model."""

    async def test_the_rows_that_both_answered_are_given(self, tmp_path: Path) -> None:
        engine = double(refuses=frozenset({"3+3?"}))
        async with ApiDouble().running() as api:
            report = await asked(engine, tmp_path, TUNED, BASE, voting=voting(api.url))
        assert (report.pairs, len(api.pairs)) == (11, 11)
        first = next(pair for pair in api.pairs.values() if pair.prompt == "1+1?")
        assert (first.candidate_answer.strip(), first.baseline_answer.strip()) == ("it is 2", "what?")
        assert api.names == {("org/tiny", "plato-v2")}

    async def test_no_more_than_wanted(self, tmp_path: Path) -> None:
        async with ApiDouble().running() as api:
            report = await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url, 5))
        assert (report.pairs, len(api.pairs)) == (5, 5)

    async def test_sent_again_they_have_the_same_ids(self, tmp_path: Path) -> None:
        async with ApiDouble().running() as api:
            await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
            again = await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
        assert (again.pairs, len(api.pairs), api.puts) == (12, 12, 2)

    async def test_an_api_that_comes_back_is_asked_again(self, tmp_path: Path) -> None:
        async with ApiDouble(troubles=[503, 500]).running() as api:
            report = await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
        assert report.pairs == 12

    @pytest.mark.parametrize("troubles", [[503] * 1000, [401]], ids=["away", "another token"])
    async def test_without_the_api_the_results_are_there_all_the_same(
        self, tmp_path: Path, troubles: list[int]
    ) -> None:
        async with ApiDouble(troubles=troubles).running() as api:
            with pytest.raises(Refused) as refusal:
                await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
        assert refusal.value.failure.reason is FailureReason.API_UNAVAILABLE
        assert manifest_in(tmp_path).rows == 12

    async def test_many_are_sent_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answer_pairs, "GROUP_MAX_BYTES", 400)
        async with ApiDouble().running() as api:
            await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
        assert api.puts > 3
        assert len(api.pairs) == 12

    async def test_what_nobody_would_read_is_left_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(answer_pairs, "TEXT_MAX_CHARACTERS", 20)
        write_rows(tmp_path, {"prompt": "1+1?"}, {"prompt": "long " * 9})
        async with ApiDouble().running() as api:
            await asked(double(), tmp_path, TUNED, BASE, voting=voting(api.url))
        assert [pair.prompt for pair in api.pairs.values()] == ["1+1?"]
