"""What merging asks of the machine before it begins, and how an output that can't be made is told."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from finetune_operator.contract.artifacts import Artifact, ArtifactType, Output, OutputError
from finetune_operator.contract.evaluation import EvaluationReport, Metric, Score
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES, JobPaths
from finetune_operator.contract.preflight import Preflight
from finetune_operator.contract.training import (
    TrainingResult,
)
from tests.builders import make_result
from tests.images.ml_environment import REPOSITORY
from tests.images.training import exporting

GIB = 1 << 30


@pytest.fixture(scope="module")
def exports() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "trainer_image"))
    try:
        importlib.import_module("publish")
        return importlib.import_module("exports")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ("weights_gib", "memory_gib", "disk_gib"), [(0.01, 1.1, 0.02), (1, 4, 2), (16, 21, 16.5), (140, 160, 200)]
)
def test_a_model_that_fits_is_merged(
    exports: ModuleType, weights_gib: float, memory_gib: float, disk_gib: float
) -> None:
    exports.check_room(int(weights_gib * GIB), int(memory_gib * GIB), int(disk_gib * GIB))


@pytest.mark.parametrize(
    ("weights_gib", "memory_gib", "disk_gib", "refusal"),
    [
        (16, 20, 100, "merging needs 20.6 GiB of memory and 20.0 are free: raise spec.resources.limits.memory"),
        (0.01, 1, 100, "merging needs 1.0 GiB of memory and 1.0 are free"),
        (
            16,
            64,
            15,
            "merged weights of 16.0 GiB don't fit into the 15.0 that are free on the artifacts volume: enlarge",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_the_kernel_kills_the_training(
    exports: ModuleType, weights_gib: float, memory_gib: float, disk_gib: float, refusal: str
) -> None:
    with pytest.raises(ValueError, match=refusal):
        exports.check_room(int(weights_gib * GIB), int(memory_gib * GIB), int(disk_gib * GIB))


@pytest.mark.parametrize(
    ("limit", "current", "cached", "available"),
    [
        (None, 0, 0, 8 * GIB),
        ("max", 3 * GIB, 0, 8 * GIB),
        (str(6 * GIB), 2 * GIB, 0, 4 * GIB),
        (str(6 * GIB), 5 * GIB, 4 * GIB, 5 * GIB),
        (str(64 * GIB), 2 * GIB, 0, 8 * GIB),
        (str(6 * GIB), 7 * GIB, 0, 0),
    ],
)
def test_memory_is_what_machine_and_container_leave(
    exports: ModuleType, tmp_path: Path, limit: str | None, current: int, cached: int, available: int
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(f"{current}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")

    assert exports.available_memory_bytes(tmp_path, tmp_path) == available


def test_a_quantized_base_model_is_not_merged_and_the_training_is_not_lost(
    exports: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}))
    config = exporting(base, Output.MERGED_WEIGHTS)
    paths = JobPaths.of(config, str(tmp_path))

    (error,) = exports.make_outputs(config, paths, make_result())

    assert error.output is Output.MERGED_WEIGHTS
    assert "files are quantized, and merging needs full precision: train on the model" in error.message
    assert "Traceback" in json.loads(capsys.readouterr().out)["error"]


ARTIFACTS = tuple(Artifact(name=kind, type=kind, size_bytes=10**12, path=kind) for kind in ArtifactType)
SCORES = tuple(Score(metric=metric, base=0.123456, fine_tuned=0.654321) for metric in Metric)


@pytest.mark.parametrize(("text", "kept"), [("x" * 300, 300), ("\u4e00" * 300, 100)])
def test_the_operator_hears_of_each_failed_output(exports: ModuleType, text: str, kept: int) -> None:
    errors = tuple(OutputError(output=output, message=text) for output in Output)
    evaluation = EvaluationReport(scores=SCORES, error="y" * 300)
    result = make_result(artifacts=ARTIFACTS, output_errors=errors, evaluation=evaluation)

    message = importlib.import_module("publish").shortened(result)

    assert len(message) <= TERMINATION_MESSAGE_MAX_BYTES
    told = TrainingResult.model_validate_json(message)
    assert [(error.output, len(error.message)) for error in told.output_errors] == [(output, kept) for output in Output]
    assert told.evaluation == evaluation


def test_the_worst_of_texts_fits_the_message(exports: ModuleType) -> None:
    """JSON escapes a control character by six."""
    errors = tuple(OutputError(output=output, message="\x01" * 300) for output in Output)
    result = make_result(output_errors=errors, evaluation=EvaluationReport(scores=SCORES, error="\x01" * 400))
    crowded = result.model_copy(
        update={"dataset": result.dataset.model_copy(update={"preflight": Preflight(warnings=("\x01" * 300,) * 4)})}
    )
    failure = Failure(reason=FailureReason.INVALID_CONFIG, message="\x01" * 2000, remedy="\U0001f600" * 2000)
    shortened = importlib.import_module("publish").shortened

    assert len(shortened(result)) <= TERMINATION_MESSAGE_MAX_BYTES
    assert len(shortened(crowded)) <= TERMINATION_MESSAGE_MAX_BYTES
    assert len(shortened(failure)) <= TERMINATION_MESSAGE_MAX_BYTES
    assert len(Failure.model_validate_json(shortened(failure)).message) == 400


def test_artifacts_fit_into_the_message_beside_an_evaluation(exports: ModuleType) -> None:
    result = make_result(artifacts=ARTIFACTS, evaluation=EvaluationReport(scores=SCORES))

    told = TrainingResult.model_validate_json(importlib.import_module("publish").shortened(result))

    assert told.artifacts == ARTIFACTS
