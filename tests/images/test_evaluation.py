"""The trainer's evaluation on a tiny model: scores, what an interruption leaves, and what can go wrong."""

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterManifest
from finetune_operator.contract.evaluation import EvaluationConfig, EvaluationReport, Metric, Score, Speed
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME
from tests.builders import REPORT, make_result
from tests.images.ml_environment import REPOSITORY
from tests.images.test_rows import CharacterTokenizer, turn
from tests.images.training import Job

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
EXIT_TERMINATED = 143
NOT_YET = ("evaluation", "testLoss", "baseTestLoss")


def evaluation_of(job: Job) -> EvaluationReport:
    report = TrainingResult.model_validate(job.outcome()).evaluation
    assert report is not None
    return report


def fine_tuned(report: EvaluationReport) -> dict[Metric, float]:
    return {score.metric: score.fine_tuned for score in report.scores}


def losses_of(job: Job) -> list[float]:
    return [job.outcome()["testLoss"], job.outcome()["baseTestLoss"]]


def with_training_of(trained: Job, job: Job) -> Job:
    """A job whose training was that of another, but of which nothing has been measured yet."""
    directory = Path(job.paths.directory)
    shutil.copytree(trained.adapter, job.adapter)
    shutil.copytree(trained.paths.dataset, job.paths.dataset, dirs_exist_ok=True)
    result = json.loads(Path(trained.paths.result).read_text()) | dict.fromkeys(NOT_YET)
    (directory / Path(job.paths.trained).name).write_text(json.dumps(result))
    return job


@pytest.mark.parametrize("name", ["trained", "preferred"])
def test_every_metric_is_measured_for_both_models(name: str, request: pytest.FixtureRequest) -> None:
    report = evaluation_of(request.getfixturevalue(name))

    assert report.error is None
    assert report.examples > 5
    assert [score.metric for score in report.scores] == list(Metric)
    assert all(0 <= value <= 1 for score in report.scores for value in (score.base, score.fine_tuned))
    for speed in (report.base_speed, report.fine_tuned_speed):
        assert speed is not None
        assert 0 < speed.seconds_per_answer < speed.mean_latency_seconds
        assert speed.tokens_per_second > 1


def test_the_base_model_answers_without_the_adapter(trained: Job) -> None:
    scores = {score.metric: score for score in evaluation_of(trained).scores}

    assert scores[Metric.TOKEN_ACCURACY].fine_tuned > scores[Metric.TOKEN_ACCURACY].base
    assert scores[Metric.ROUGE_L].fine_tuned != scores[Metric.ROUGE_L].base


def test_a_job_without_metrics_answers_nothing(job: MakeJob, conversations: Rows) -> None:
    plain = job("without-metrics", conversations, epochs=1)

    attempt = plain.run()

    assert plain.outcome()["evaluation"] is None
    assert attempt.lines("measuring") == []
    assert plain.outcome()["testLoss"] is not None


def test_sigterm_while_answering_keeps_the_training(job: MakeJob, conversations: Rows) -> None:
    slow = EvaluationConfig(metrics=(Metric.TOKEN_F1,), max_new_tokens=256)
    interrupted = job("interrupted-evaluation", conversations, epochs=1, evaluation=slow)

    first = interrupted.start()
    first.wait_for("measuring")
    assert first.signal(signal.SIGTERM) == EXIT_TERMINATED
    digest = AdapterManifest.model_validate_json((interrupted.adapter / MANIFEST_NAME).read_bytes()).digest
    second = interrupted.run()

    assert second.lines("training") == []
    assert interrupted.outcome()["adapterDigest"] == digest
    assert evaluation_of(interrupted).scores
    left = {path.name for path in Path(interrupted.paths.directory).iterdir()}
    assert left == {"adapter", "artifacts.json", "dataset", "lock", "result.json", "train.log"}


def test_a_later_attempt_measures_the_adapter_that_was_published(
    job: MakeJob, conversations: Rows, trained: Job
) -> None:
    later = job("later", conversations, evaluation=trained.config.evaluation)

    attempt = with_training_of(trained, later).run()

    assert attempt.lines("loaded") == []
    assert losses_of(later) == pytest.approx(losses_of(trained), rel=1e-3)
    assert fine_tuned(evaluation_of(later)) == pytest.approx(fine_tuned(evaluation_of(trained)), abs=1e-3)


def test_an_evaluation_that_the_kernel_kills_costs_no_training(job: MakeJob, conversations: Rows, trained: Job) -> None:
    slow = EvaluationConfig(metrics=(Metric.TOKEN_F1,), max_new_tokens=256)
    killed = with_training_of(trained, job("killed-evaluation", conversations, evaluation=slow))

    attempt = killed.start()
    attempt.wait_for("evaluating")
    told_before = killed.outcome()
    (child,) = Path(f"/proc/{attempt.process.pid}/task/{attempt.process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    attempt.expect(0)

    assert told_before["adapterDigest"] == trained.outcome()["adapterDigest"]
    assert "the trainer was ended" in told_before["evaluation"]["error"]
    error = evaluation_of(killed).error or ""
    assert error.startswith("the evaluation was killed, as the kernel does where memory runs out: raise spec.resources")
    assert losses_of(killed) == pytest.approx(losses_of(trained), rel=1e-3)
    left = {path.name for path in Path(killed.paths.directory).iterdir()}
    assert left == {"adapter", "artifacts.json", "dataset", "lock", "result.json", "train.log"}


def test_an_evaluation_has_only_its_time(job: MakeJob, conversations: Rows, trained: Job) -> None:
    hasty = EvaluationConfig(metrics=(Metric.TOKEN_F1,), timeout_seconds=1)
    stopped = with_training_of(trained, job("hasty-evaluation", conversations, evaluation=hasty))

    stopped.run()

    assert "the evaluation was stopped after 1 s" in (evaluation_of(stopped).error or "")


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "trainer_image"), *sys.path])
    return importlib.import_module("evaluation")


EXAMPLES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "one answer": (
        "SFT",
        {"messages": [turn("system", "s"), turn("user", "hi"), turn("assistant", " ho ")]},
        "<system>s;<user>hi;<assistant>",
        "ho",
    ),
    "a dialogue's last answer": (
        "SFT",
        {"messages": [turn("user", "a"), turn("assistant", "B"), turn("user", "c"), turn("assistant", "D")]},
        "<user>a;<assistant>B;<user>c;<assistant>",
        "D",
    ),
    "nothing after the last answer": (
        "SFT",
        {"messages": [turn("user", "a"), turn("assistant", "B"), turn("user", "thanks")]},
        "<user>a;<assistant>",
        "B",
    ),
    "the chosen answer of a pair": (
        "DPO",
        {"prompt": [turn("user", "q")], "chosen": [turn("assistant", "yes")], "rejected": [turn("assistant", "no")]},
        "<user>q;<assistant>",
        "yes",
    ),
}


@pytest.mark.parametrize(("method", "row", "prompt", "reference"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_what_is_asked_and_what_should_be_answered(
    evaluation: ModuleType, method: str, row: dict[str, Any], prompt: str, reference: str
) -> None:
    example = evaluation.example_of(CharacterTokenizer(), row, method)

    assert "".join(map(chr, example.prompt)) == prompt
    assert example.reference == reference


def test_the_operator_hears_of_every_metric_however_much_else_there_is_to_say(evaluation: ModuleType) -> None:
    speed = Speed(mean_latency_seconds=1 / 3, seconds_per_answer=1 / 7, tokens_per_second=1000 / 3)
    report = EvaluationReport(
        examples=100,
        scores=tuple(Score(metric=metric, base=0.123456, fine_tuned=0.654321) for metric in Metric),
        base_speed=speed,
        fine_tuned_speed=speed,
        error="x" * 600,
    )
    warnings = tuple(f"warning {number}: {'y' * 100}" for number in range(50))
    result = make_result(evaluation=report, dataset=REPORT.model_copy(update={"warnings": warnings}))

    message = importlib.import_module("publish").shortened(result)

    assert len(message) <= TERMINATION_MESSAGE_MAX_BYTES
    assert TrainingResult.model_validate_json(message).evaluation == report


def test_answers_longer_than_the_context_are_refused_with_a_remedy(evaluation: ModuleType) -> None:
    too_long = EvaluationConfig(metrics=(Metric.ROUGE_L,), max_new_tokens=60)
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=64))
    row = {"messages": [turn("user", "hi"), turn("assistant", "ho")]}

    report = evaluation.evaluate(SimpleNamespace(method="SFT"), too_long, model, CharacterTokenizer(), [row])

    assert (report.examples, report.left_out, report.scores) == (0, 1, ())
    assert "lower spec.evaluation.maxNewTokens" in report.error


def test_an_answer_without_a_question_is_no_example(evaluation: ModuleType) -> None:
    row = {"messages": [turn("assistant", "Welcome."), turn("user", "Thanks.")]}

    assert evaluation.example_of(CharacterTokenizer(), row, "SFT") is None


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    evaluation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "release_memory", lambda: None)  # of a GPU, by torch, which is not needed here
    tried: list[int] = []

    class SmallMemory(evaluation.Answering):  # type: ignore[misc, name-defined]
        def _generate(self, batch: list[Any]) -> list[list[int]]:
            tried.append(len(batch))
            if len(batch) > 2:
                raise MemoryError
            return [[ord("x")] for _ in batch]

    class Model:
        training = False
        generation_config = None

        def eval(self) -> None: ...

        def train(self, mode: bool) -> None: ...

    class Tokenizer:
        eos_token_id = 0

        def batch_decode(self, said: list[list[int]], *, skip_special_tokens: bool) -> list[str]:
            return ["".join(map(chr, answer)) for answer in said]

    answers = SmallMemory(Model(), Tokenizer(), 8, 4).answers([evaluation.Example([1], "x")] * 5)

    assert tried == [5, 2, 2, 1]
    assert answers.texts == ["x"] * 5
