"""What becomes of an evaluation that ends badly, on the trainer's own modules; its process is played.

The real one is in test_evaluation.py.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune_operator.contract.artifacts import Output
from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.evaluation import EvaluationConfig, EvaluationReport, Metric
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import (
    JobIdentity,
    LoraConfig,
    TrainingConfig,
    TrainingParameters,
    TrainingResult,
)
from tests.builders import make_result
from tests.images.ml_environment import REPOSITORY

REPORT = EvaluationReport(examples=7)
WANTED = EvaluationConfig(metrics=(Metric.ROUGE_L,), timeout_seconds=90)
TRAINED = make_result(test_loss=None, base_test_loss=None)
LOSSES = {"testLoss": 0.5, "baseTestLoss": 1.5}


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "trainer_image"))
    return importlib.import_module("measuring")


@pytest.fixture
def finishing(measuring: ModuleType) -> ModuleType:
    return importlib.import_module("finishing")


def config_of(evaluation: EvaluationConfig | None = WANTED, outputs: tuple[Output, ...] = ()) -> TrainingConfig:
    return TrainingConfig(
        job=JobIdentity(namespace="finetune", name="plato", uid="uid"),
        model="plato",
        method="SFT",
        backend="Unsloth",
        base_model_name="tiny",
        base_model_path="nowhere",
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(),
        evaluation=evaluation,
        outputs=outputs,
    )


@pytest.fixture
def paths(tmp_path: Path) -> JobPaths:
    found = JobPaths.of(config_of(), str(tmp_path))
    Path(found.directory).mkdir(parents=True)
    return found


Play = Callable[..., list[float]]


@pytest.fixture
def play(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Lets each process write this and end so; the time limits that they were given."""

    def script(*written: dict[str, Any], ends: str | None = None, parent_dies: bool = False) -> list[float]:
        limits: list[float] = []

        def run_child(name: str, arguments: Sequence[str], timeout_seconds: float) -> None:
            limits.append(timeout_seconds)
            for values in written:
                measuring.write_measured(measuring.Measured.model_validate(values), Path(arguments[-1]))
            if parent_dies:
                raise KeyboardInterrupt
            if ends:
                raise measuring.ChildFailed(ends)

        monkeypatch.setattr(measuring, "run_child", run_child)
        return limits

    return script


def report_of(result: TrainingResult) -> EvaluationReport:
    assert result.evaluation is not None
    return result.evaluation


def test_losses_and_scores_become_the_result(measuring: ModuleType, play: Play, paths: JobPaths) -> None:
    limits = play(LOSSES, LOSSES | {"evaluation": REPORT.model_dump()})

    result = measuring.measured(config_of(), paths, "a", TRAINED)

    assert (result.test_loss, result.base_test_loss, result.evaluation) == (0.5, 1.5, REPORT)
    assert limits == [90]


def test_the_losses_outlive_answers_that_end_badly(measuring: ModuleType, play: Play, paths: JobPaths) -> None:
    play(LOSSES, ends="was killed")

    result = measuring.measured(config_of(), paths, "a", TRAINED)

    assert (result.test_loss, result.base_test_loss) == (0.5, 1.5)
    error = report_of(result).error or ""
    assert error.startswith("the evaluation was killed: raise spec.resources.limits.memory, or lower spec.evaluation")


def test_a_process_that_leaves_nothing_is_told(measuring: ModuleType, play: Play, paths: JobPaths) -> None:
    play()

    assert "left nothing" in (report_of(measuring.measured(config_of(), paths, "a", TRAINED)).error or "")


def test_losses_alone_are_asked_for_without_metrics(measuring: ModuleType, play: Play, paths: JobPaths) -> None:
    play(LOSSES)

    result = measuring.measured(config_of(None), paths, "a", TRAINED)

    assert (result.test_loss, result.evaluation) == (0.5, None)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (None, EvaluationReport(error="no loss")),
        (REPORT, REPORT.model_copy(update={"remark": "no loss"})),
        (REPORT.model_copy(update={"remark": "no F1"}), REPORT.model_copy(update={"remark": "no loss; no F1"})),
    ],
    ids=["without metrics it is an error", "with metrics a remark", "beside another remark"],
)
def test_a_missing_loss_is_told(
    measuring: ModuleType,
    play: Play,
    paths: JobPaths,
    evaluation: EvaluationReport | None,
    expected: EvaluationReport,
) -> None:
    play({"lossError": "no loss", "evaluation": evaluation and evaluation.model_dump()})
    config = config_of(WANTED if evaluation else None)

    assert measuring.measured(config, paths, "a", TRAINED).evaluation == expected


def test_an_evaluation_that_takes_its_pod_with_it_is_begun_three_times(
    measuring: ModuleType, play: Play, paths: JobPaths
) -> None:
    limits = play(LOSSES, parent_dies=True)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            measuring.measured(config_of(), paths, "a", TRAINED)

    result = measuring.measured(config_of(), paths, "a", TRAINED)

    assert len(limits) == 3
    assert result.test_loss == 0.5
    assert "begun 3 times, and each time its pod ended first" in (report_of(result).error or "")


def test_what_a_dead_attempt_had_measured_is_not_measured_again(
    measuring: ModuleType, play: Play, paths: JobPaths
) -> None:
    play(LOSSES | {"evaluation": REPORT.model_dump()}, parent_dies=True)
    with pytest.raises(KeyboardInterrupt):
        measuring.measured(config_of(), paths, "a", TRAINED)
    limits = play()

    assert measuring.measured(config_of(), paths, "a", TRAINED).evaluation == REPORT
    assert limits == []


NO_ROWS = TRAINED.model_copy(update={"dataset": TRAINED.dataset.model_copy(update={"test_rows": 0})})
TO_BE_MEASURED = {
    "neither": (TRAINED, WANTED, True),
    "the losses alone": (TRAINED, None, True),
    "the scores alone": (make_result(), WANTED, True),
    "all there": (make_result(evaluation=REPORT), WANTED, False),
    "the losses there, no scores asked for": (make_result(), None, False),
    "no rows, no scores asked for": (NO_ROWS, None, False),
    "found to be impossible": (TRAINED.model_copy(update={"evaluation": EvaluationReport(error="x")}), WANTED, False),
}


@pytest.mark.parametrize(("result", "wanted", "expected"), TO_BE_MEASURED.values(), ids=TO_BE_MEASURED.keys())
def test_what_is_left_to_measure(
    measuring: ModuleType, result: TrainingResult, wanted: EvaluationConfig | None, expected: bool
) -> None:
    assert measuring.is_to_be_measured(config_of(wanted), result) is expected


def test_a_trainer_that_is_ended_after_its_publication_has_told_its_result(
    finishing: ModuleType, paths: JobPaths, tmp_path: Path
) -> None:
    message = tmp_path / "termination-log"
    Path(paths.modelfile).touch()

    finishing.keep(
        config_of(outputs=(Output.MERGED_WEIGHTS, Output.OLLAMA_MODELFILE, Output.UNSLOTH_SCRIPT)),
        paths,
        TRAINED,
        message,
    )

    told = TrainingResult.model_validate_json(message.read_bytes())
    assert told.adapter_digest == TRAINED.adapter_digest
    assert "ended, for memory or by its node, before the held-out rows were measured" in (report_of(told).error or "")
    assert [error.output for error in told.output_errors] == [Output.MERGED_WEIGHTS, Output.UNSLOTH_SCRIPT]
    kept = TrainingResult.model_validate_json(Path(paths.trained).read_bytes())
    assert kept == TRAINED


def test_nothing_is_said_to_be_missing_once_all_is_there(
    finishing: ModuleType, paths: JobPaths, tmp_path: Path
) -> None:
    message = tmp_path / "termination-log"

    finishing.keep(config_of(None), paths, make_result(), message)

    assert TrainingResult.model_validate_json(message.read_bytes()) == make_result()


def test_what_was_measured_is_forgotten_with_the_result(
    finishing: ModuleType, play: Play, paths: JobPaths, tmp_path: Path
) -> None:
    play(LOSSES | {"evaluation": REPORT.model_dump()})

    result = finishing.finish(config_of(), paths, "a", TRAINED, tmp_path / "termination-log")

    assert result.evaluation == REPORT
    assert {path.name for path in Path(paths.directory).iterdir()} == {"artifacts.json", "result.json"}
