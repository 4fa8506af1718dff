"""The evaluator against a server that speaks vLLM's API: scores, times, patience, and what it says when it gives up."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource, VolumeSource
from finetune_operator.contract.evaluation import EvaluationReport, Metric
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.contract.served_evaluation import SaturationConfig, ServedEvaluationConfig
from finetune_operator.core.dataset_records import Format
from finetune_operator.evaluator import measure as measuring
from finetune_operator.evaluator import questions as reading
from finetune_operator.evaluator.app import evaluate, main
from finetune_operator.evaluator.engine import EngineRefused, EngineUnavailable, Patience
from finetune_operator.evaluator.questions import read_questions
from tests.unit.evaluator.engine_double import CONTEXT, IMPATIENT, KEY, EngineDouble
from tests.unit.store.ratings_database import rating, write_ratings
from tests.waiting import eventually

BASE, TUNED = "tiny", "plato-v2"
ENVIRONMENT = {"VLLM_API_KEY": KEY}
RIGHT = {"Is it so?": "yes it is", "Is that so?": "no it is not", "Why?": "because of that"}
ROWS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    for question, answer in RIGHT.items()
]


def many(times: int) -> list[Any]:
    """The same questions in other conversations."""
    system = ({"role": "system", "content": str(number)} for number in range(times))
    return [{"messages": [first, *row["messages"]]} for first in system for row in ROWS]


PAIR = {
    "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Why?"}],
    "chosen": [{"role": "assistant", "content": "because of that"}],
    "rejected": [{"role": "assistant", "content": "who knows"}],
}
UNASKED = {"messages": [{"role": "assistant", "content": "hello"}]}


def double(**options: Any) -> EngineDouble:
    """A base model that knows one answer of three, and a version that knows all of them."""
    return EngineDouble({BASE: {"Is it so?": "Yes, it is."}, TUNED: dict(RIGHT)}, **options)


def rows_file(directory: Path, rows: list[Any]) -> Path:
    path = directory / "test.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def config_of(engine: EngineDouble, rows: Path, *metrics: Metric, **changes: Any) -> ServedEvaluationConfig:
    fields: dict[str, Any] = {"max_examples": 100, "max_new_tokens": 16, "concurrency": 2, "rows_path": str(rows)}
    return ServedEvaluationConfig(
        engine_url=engine.url,
        base_model_name=BASE,
        served_name=TUNED,
        metrics=metrics or (Metric.EXACT_MATCH,),
        **(fields | changes),
    )


async def measured(engine: EngineDouble, rows: Path, *metrics: Metric, **changes: Any) -> EvaluationReport:
    async with engine.running():
        return await evaluate(config_of(engine, rows, *metrics, **changes), ENVIRONMENT, IMPATIENT)


def scores_of(report: EvaluationReport) -> dict[str, tuple[float, float]]:
    return {score.metric.value: (score.base, score.fine_tuned) for score in report.scores}


async def test_base_model_and_version_are_scored_side_by_side(tmp_path: Path) -> None:
    metrics = (Metric.EXACT_MATCH, Metric.SUBSTRING_MATCH, Metric.TOKEN_F1)
    report = await measured(double(), rows_file(tmp_path, ROWS), *metrics)
    assert (report.examples, report.left_out, report.remark) == (3, 0, None)
    assert scores_of(report) == {
        "ExactMatch": (0.333333, 1.0),
        "SubstringMatch": (0.333333, 1.0),
        "TokenF1": (0.333333, 1.0),
    }


async def test_a_base_model_of_another_engine_is_asked_there_and_told_of(tmp_path: Path) -> None:
    """The version's engine has its merged weights and knows no other name."""
    base = EngineDouble({BASE: {"Is it so?": "Yes, it is."}})
    tuned = EngineDouble({TUNED: dict(RIGHT)})
    metrics, saturation = (
        (Metric.EXACT_MATCH, Metric.TOKEN_ACCURACY),
        SaturationConfig(step_seconds=0, max_concurrency=1),
    )
    async with base.running(), tuned.running():
        config = config_of(tuned, rows_file(tmp_path, ROWS), *metrics, base_engine_url=base.url, saturation=saturation)
        report = await evaluate(config, ENVIRONMENT, IMPATIENT)
    assert scores_of(report)["ExactMatch"] == (0.333333, 1.0)
    assert scores_of(report)["TokenAccuracy"][1] == 1.0
    assert {model for _, model in base.requests} == {BASE}
    assert {model for _, model in tuned.requests} == {TUNED}
    assert {path for path, _ in base.requests} == {path for path, _ in tuned.requests}
    assert report.remark is not None
    assert report.remark.startswith(
        "tiny was asked of another engine, since this version's has its merged weights alone"
    )


async def test_a_question_has_to_fit_into_both_engines(tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "why " * 50}, {"role": "assistant", "content": "yes"}]}
    base, tuned = EngineDouble({BASE: {}}, context=1000), EngineDouble({TUNED: {}})
    async with base.running(), tuned.running():
        config = config_of(tuned, rows_file(tmp_path, [*ROWS, long]), base_engine_url=base.url)
        report = await evaluate(config, ENVIRONMENT, IMPATIENT)
    assert (report.examples, report.left_out) == (3, 1)


async def test_of_a_preference_pair_the_chosen_answer_is_the_right_one(tmp_path: Path) -> None:
    report = await measured(double(), rows_file(tmp_path, [PAIR]))
    assert scores_of(report) == {"ExactMatch": (0.0, 1.0)}


async def test_latency_is_each_answers_own_and_throughput_is_of_all(tmp_path: Path) -> None:
    engine = double(delay_seconds={BASE: 0.02, TUNED: 0.06})
    report = await measured(engine, rows_file(tmp_path, many(4)), concurrency=4)
    base, tuned = report.base_speed, report.fine_tuned_speed
    assert base is not None
    assert tuned is not None
    for speed, delay in ((base, 0.02), (tuned, 0.06)):
        assert speed.mean_seconds_to_first_token is not None
        assert speed.p95_latency_seconds is not None
        assert delay <= speed.mean_seconds_to_first_token < speed.mean_latency_seconds <= speed.p95_latency_seconds
        # Four at a time: an answer takes up a quarter of the time that it lasts.
        assert speed.seconds_per_answer < 0.6 * speed.mean_latency_seconds
    assert tuned.mean_latency_seconds >= 3 * 0.06
    # 12 answers of 4 or 5 tokens, their end included
    words = 4 * sum(len(answer.split()) + 1 for answer in RIGHT.values())
    assert tuned.tokens_per_second * tuned.seconds_per_answer * 12 == pytest.approx(words)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_are_asked_at_once_than_allowed(tmp_path: Path, concurrency: int) -> None:
    engine = double(delay_seconds={TUNED: 0.005})
    await measured(engine, rows_file(tmp_path, many(4)), concurrency=concurrency)
    assert engine.most_at_once == concurrency


async def test_both_models_get_all_questions_and_one_more_that_is_not_timed(tmp_path: Path) -> None:
    engine = double()
    await measured(engine, rows_file(tmp_path, ROWS))
    asked = [model for path, model in engine.requests if path == "/v1/chat/completions"]
    assert asked == [BASE] * 4 + [TUNED] * 4
    assert {body["temperature"] for body in engine.asked} == {0}


class TestTokenAccuracy:
    async def test_it_counts_the_tokens_of_the_answers_alone(self, tmp_path: Path) -> None:
        """The base model ranks first `it` and the end, of `yes it is <end>` and `because of that <end>`."""
        engine = EngineDouble({BASE: {"Is it so?": "it"}, TUNED: dict(RIGHT)})
        report = await measured(engine, rows_file(tmp_path, [ROWS[0], ROWS[2]]), Metric.TOKEN_ACCURACY)
        assert scores_of(report) == {"TokenAccuracy": (3 / 8, 1.0)}

    async def test_it_counts_all_answers_of_a_dialogue(self, tmp_path: Path) -> None:
        dialogue = {"messages": [*ROWS[0]["messages"], {"role": "user", "content": "it it it"}, ROWS[2]["messages"][1]]}
        engine = EngineDouble({BASE: {"Is it so?": "it"}, TUNED: dict(RIGHT)})
        report = await measured(engine, rows_file(tmp_path, [dialogue]), Metric.TOKEN_ACCURACY)
        assert scores_of(report) == {"TokenAccuracy": (3 / 8, 1.0)}

    async def test_a_long_answer_is_asked_for_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(measuring, "PREFIXES_AT_ONCE", 3)
        engine = double()
        report = await measured(engine, rows_file(tmp_path, ROWS[:1]), Metric.TOKEN_ACCURACY)
        assert scores_of(report)["TokenAccuracy"][1] == 1.0
        assert engine.requests.count(("/v1/completions", TUNED)) == 2

    async def test_an_engine_that_tells_no_tokens_leaves_it_unmeasured(self, tmp_path: Path) -> None:
        engine = double(has_tokens=False)
        report = await measured(engine, rows_file(tmp_path, ROWS), Metric.TOKEN_ACCURACY, Metric.EXACT_MATCH)
        assert scores_of(report).keys() == {"ExactMatch"}
        assert report.remark is not None
        assert "TokenAccuracy was not measured" in report.remark


def of_volume(record_format: Format) -> DatasetConfig:
    """All rows of `q.jsonl`, however short."""
    return DatasetConfig(
        source=VolumeSource(path="q.jsonl"),
        format=record_format,
        test_fraction=0.0,
        min_prompt_characters=1,
        min_response_characters=1,
    )


class TestRows:
    async def test_only_the_first_are_asked(self, tmp_path: Path) -> None:
        report = await measured(double(), rows_file(tmp_path, ROWS), max_examples=2)
        assert report.examples == 2

    async def test_those_that_ask_nothing_or_are_too_long_are_counted(self, tmp_path: Path) -> None:
        question = {"role": "user", "content": "word " * (CONTEXT - 16)}
        long = {"messages": [question, {"role": "assistant", "content": "x"}]}
        report = await measured(double(), rows_file(tmp_path, [UNASKED, *ROWS, long]))
        assert (report.examples, report.left_out) == (3, 2)

    def test_questions_of_their_own_are_read_from_their_source(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [{"instruction": question, "output": "A"} for question in ("1+1?", "2+2?")]
        (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        monkeypatch.setattr(reading, "DATASETS_ROOT", str(tmp_path))
        found = read_questions(config_of(EngineDouble({}), tmp_path, dataset=of_volume("Alpaca")), {})
        assert {each.asked[-1]["content"] for each in found.questions} == {"1+1?", "2+2?"}
        assert {each.reference for each in found.questions} == {"A"}

    def test_of_ratings_the_domain_is_known_and_two_ratings_of_one_answer_are_one_question(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rated = [("1+1?", {"domain": "sums", "rating": 4}), ("1+1?", {"domain": "sums", "rating": 5}), ("Why?", {})]
        rows = [{"instruction": question, "output": "A", "metadata": metadata} for question, metadata in rated]
        rows.append({"instruction": "What?", "output": "A", "metadata": {"domain": ["odd"]}})
        (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        monkeypatch.setattr(reading, "DATASETS_ROOT", str(tmp_path))
        found = read_questions(config_of(EngineDouble({}), tmp_path, dataset=of_volume("Instruction")), {})
        told = {each.asked[-1]["content"]: (each.reference, each.domain) for each in found.questions}
        assert told == {"1+1?": ("A", "sums"), "Why?": ("A", None), "What?": ("A", None)}
        assert (len(found.questions), found.left_out) == (3, 0)

    def test_questions_from_the_ratings_have_the_domain_of_their_rating(self, tmp_path: Path) -> None:
        rated = [rating(1, prompt="1+1?", domain="sums"), rating(2, prompt="Why?", domain=None)]
        url = write_ratings(tmp_path / "ratings.db", rated)
        dataset = DatasetConfig(source=RatingsSource(), test_fraction=0.0, min_prompt_characters=1)
        config = config_of(EngineDouble({}), tmp_path, dataset=dataset)
        found = read_questions(config, {DATABASE_URL_VARIABLE: url})
        assert {each.asked[-1]["content"]: each.domain for each in found.questions} == {"1+1?": "sums", "Why?": None}

    async def test_the_first_metric_is_told_for_each_domain(self, tmp_path: Path) -> None:
        domains = {"Is it so?": "facts", "Is that so?": "facts", "Why?": "reasons"}
        rows = [
            {"instruction": question, "output": RIGHT[question], "metadata": {"domain": domain}}
            for question, domain in domains.items()
        ]
        metrics = (Metric.TOKEN_ACCURACY, Metric.EXACT_MATCH, Metric.TOKEN_F1)
        report = await measured(double(), rows_file(tmp_path, rows), *metrics)
        assert [(each.domain, each.examples, each.metric, each.base, each.fine_tuned) for each in report.domains] == [
            ("facts", 2, Metric.EXACT_MATCH, 0.5, 1.0),
            ("reasons", 1, Metric.EXACT_MATCH, 0.0, 1.0),
        ]

    async def test_domains_are_told_as_long_as_they_fit(self, tmp_path: Path) -> None:
        rows = [
            {"instruction": question, "output": answer, "metadata": {"domain": f"{number:02} {chr(0x1F600) * 300}"}}
            for number in range(15)
            for question, answer in ((f"Why {number}?", "because"),)
        ]
        every = tuple(metric for metric in Metric if metric is not Metric.TOKEN_ACCURACY)
        load = SaturationConfig(step_seconds=0, max_concurrency=1)
        report = await measured(double(), rows_file(tmp_path, rows), *every, saturation=load)
        assert [each.domain[:2] for each in report.domains] == [f"{number:02}" for number in range(10)]
        assert len(report.model_dump_json(by_alias=True, exclude_none=True).encode()) < 4096


class TestPatience:
    @pytest.mark.parametrize("status", [404, 500, 503])
    async def test_what_may_pass_is_asked_again(self, tmp_path: Path, status: int) -> None:
        engine = double(troubles=[status, status])
        report = await measured(engine, rows_file(tmp_path, ROWS))
        assert scores_of(report) == {"ExactMatch": (0.333333, 1.0)}

    async def test_an_answer_that_breaks_off_is_asked_for_again(self, tmp_path: Path) -> None:
        report = await measured(double(breaks_off=2), rows_file(tmp_path, ROWS))
        assert scores_of(report) == {"ExactMatch": (0.333333, 1.0)}

    async def test_an_engine_that_is_silent_is_given_up(self, tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable, match="did not answer"):
            await measured(double(delay_seconds={TUNED: 5.0}), rows_file(tmp_path, ROWS))

    async def test_an_engine_that_comes_back_is_asked_the_rest(self, tmp_path: Path) -> None:
        engine, rows = double(), rows_file(tmp_path, ROWS)
        async with engine.running():
            config = config_of(engine, rows)
            port = int(engine.url.rsplit(":", 1)[1])
        patient = Patience(first_wait_seconds=0.01, longest_wait_seconds=0.05, outage_seconds=20)
        waiting = asyncio.create_task(evaluate(config, ENVIRONMENT, patient))
        async with engine.running_at(port):
            report = await waiting
        assert report.examples == 3

    async def test_a_refusal_is_not_asked_again(self, tmp_path: Path) -> None:
        engine = double(troubles=[400])
        with pytest.raises(EngineRefused, match="answered 400"):
            await measured(engine, rows_file(tmp_path, ROWS[:1]))
        assert len(engine.requests) == 1

    async def test_a_wrong_key_is_a_refusal(self, tmp_path: Path) -> None:
        engine, rows = double(), rows_file(tmp_path, ROWS)
        async with engine.running():
            with pytest.raises(EngineRefused, match="answered 401"):
                await evaluate(config_of(engine, rows), {"VLLM_API_KEY": "another"}, IMPATIENT)


BAD_ROWS: dict[str, tuple[list[Any] | None, FailureReason, int, str]] = {
    "no file": (None, FailureReason.DATASET_EMPTY, 44, "name other questions in spec.evaluation.dataset"),
    "an empty file": ([], FailureReason.DATASET_EMPTY, 44, "hold out more rows"),
    "nothing asked": ([UNASKED], FailureReason.DATASET_EMPTY, 44, "name other questions"),
    "no conversation": ([*ROWS, {"text": "x"}], FailureReason.DATASET_INVALID, 43, "correct the row"),
}


class TestProcess:
    """`finetune-operator evaluate` from its config to its termination message."""

    def run(self, tmp_path: Path, config: ServedEvaluationConfig) -> tuple[int, str]:
        file, termination_log = tmp_path / "config.json", tmp_path / "termination-log"
        file.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        return main(file, termination_log, ENVIRONMENT, IMPATIENT), termination_log.read_text()

    @pytest.mark.parametrize(("rows", "reason", "exit_code", "remedy"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
    def test_rows_that_are_none_end_it_for_good(
        self, tmp_path: Path, rows: list[Any] | None, reason: FailureReason, exit_code: int, remedy: str
    ) -> None:
        path = tmp_path / "test.jsonl" if rows is None else rows_file(tmp_path, rows)
        code, message = self.run(tmp_path, config_of(EngineDouble({}), path))
        failure = Failure.model_validate_json(message)
        assert (code, failure.reason) == (exit_code, reason)
        assert remedy in failure.remedy

    def test_an_engine_that_is_away_is_left_to_another_try(self, tmp_path: Path) -> None:
        engine = EngineDouble({}, url="http://127.0.0.1:9")
        code, message = self.run(tmp_path, config_of(engine, rows_file(tmp_path, ROWS)))
        failure = Failure.model_validate_json(message)
        assert (code, failure.reason) == (1, FailureReason.ENGINE_UNAVAILABLE)
        assert len(message.encode()) <= 4096

    def test_a_config_of_another_release_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        assert main(tmp_path / "config.json", tmp_path / "log", ENVIRONMENT, IMPATIENT) == 42

    async def test_the_program_reports_and_leaves_at_once_when_asked(self, tmp_path: Path) -> None:
        engine, rows = double(delay_seconds={TUNED: 0.5}), rows_file(tmp_path, ROWS)
        async with engine.running():
            file = tmp_path / "config.json"
            file.write_text(config_of(engine, rows).model_dump_json(by_alias=True, exclude_none=True))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "finetune_operator", "evaluate", str(file)),
                env=os.environ | ENVIRONMENT,
                stdout=asyncio.subprocess.DEVNULL,
            )
            await eventually(lambda: TUNED in [model for _, model in engine.requests], 30)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 143
