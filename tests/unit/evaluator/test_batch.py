"""A batch inference against a server that speaks vLLM's API: what it writes, and how it goes on after it was killed."""

import asyncio
import fcntl
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.contract.batch_inference import (
    AskedModel,
    BatchInferenceConfig,
    BatchReport,
    SamplingConfig,
    VotingConfig,
)
from finetune_operator.contract.dataset import DatasetConfig, RatingsSource, VolumeSource
from finetune_operator.contract.experiments import AnswerPair, AnswerPairs
from finetune_operator.contract.failures import Failure, FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE, BatchPaths
from finetune_operator.contract.training import JobIdentity, Progress, ProgressBatch
from finetune_operator.core import answer_pairs
from finetune_operator.core.batch_inference import answer_of
from finetune_operator.evaluator import batch_requests
from finetune_operator.evaluator.batch import Surroundings, main, run
from finetune_operator.evaluator.batch_results import PartialResults
from finetune_operator.evaluator.engine import EngineRefused, EngineUnavailable
from tests.unit.evaluator.engine_double import KEY, EngineDouble
from tests.unit.evaluator.test_evaluator import IMPATIENT
from tests.unit.store.ratings_database import rating, write_ratings
from tests.waiting import eventually

BASE, TUNED = "org/tiny", "plato-v2"
ANSWERS = {f"{number}+{number}?": f"it is {2 * number}" for number in range(12)}
BATCH = JobIdentity(namespace="finetune", name="sums", uid="uid-1")


def double(**options: Any) -> EngineDouble:
    return EngineDouble({BASE: {}, TUNED: dict(ANSWERS)}, **options)


def surroundings(directory: Path, **environment: str) -> Surroundings:
    return Surroundings(
        artifacts=directory / "artifacts",
        termination_log=directory / "termination-log",
        environment={"VLLM_API_KEY": KEY, "POD_NAME": "batch-1", **environment},
        patience=IMPATIENT,
        progress_seconds=0.02,
    )


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted at `/datasets`."""
    monkeypatch.setattr(batch_requests, "DATASETS_ROOT", str(tmp_path))
    write_rows(tmp_path, *({"prompt": question} for question in ANSWERS))


def write_rows(directory: Path, *rows: Any) -> None:
    (directory / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def config_of(engine: EngineDouble, *names: str, **changes: Any) -> BatchInferenceConfig:
    config = BatchInferenceConfig(
        batch=BATCH,
        models=tuple(AskedModel(served_name=name, engine_url=engine.url) for name in names or (TUNED,)),
        dataset=DatasetConfig(
            source=VolumeSource(path="q.jsonl"), test_fraction=0.0, min_prompt_characters=1, min_response_characters=1
        ),
        prompts_alone=True,
        sampling=SamplingConfig(max_tokens=16),
        max_concurrent_requests=3,
    )
    return config.model_copy(update=changes)


async def asked(engine: EngineDouble, directory: Path, *names: str, **changes: Any) -> BatchReport:
    async with engine.running():
        return await asyncio.to_thread(run, config_of(engine, *names, **changes), surroundings(directory))


def paths_in(directory: Path) -> BatchPaths:
    return BatchPaths("finetune", "uid-1", str(directory / "artifacts"))


def lines_of(directory: Path, name: str = TUNED) -> list[bytes]:
    return Path(paths_in(directory).answers(name)).read_bytes().splitlines(keepends=True)


def manifest_in(directory: Path) -> BatchReport:
    return BatchReport.model_validate_json(Path(paths_in(directory).manifest).read_bytes())


def left_in(directory: Path) -> set[str]:
    """Names in the batch's directory."""
    path = Path(paths_in(directory).directory)
    return {file.name for file in path.iterdir()} if path.exists() else set()


def leave_partial(directory: Path, content: bytes) -> None:
    """As a killed attempt does."""
    partial = Path(paths_in(directory).partial_answers(TUNED))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content)


@dataclass
class ApiDouble:
    """What the api is told; `troubles` are statuses with which the next requests of pairs end instead."""

    troubles: list[int] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    pairs: dict[str, AnswerPair] = field(default_factory=dict)
    names: set[tuple[str, str]] = field(default_factory=set)
    puts: int = 0
    url: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ApiDouble"]:
        application = web.Application()
        application.router.add_post("/progress/batch", self._progress)
        application.router.add_put("/pairs", self._pairs)
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

    async def _pairs(self, request: web.Request) -> web.Response:
        if self.troubles:
            return web.Response(status=self.troubles.pop(0))
        sent = AnswerPairs.model_validate_json(await request.text())
        self.puts += 1
        self.names.add((sent.baseline_served_name, sent.candidate_served_name))
        self.pairs |= {pair.id: pair for pair in sent.pairs}
        return web.Response(status=204)


def questions_asked(engine: EngineDouble) -> list[str]:
    return [body["messages"][-1]["content"] for body in engine.asked]


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
