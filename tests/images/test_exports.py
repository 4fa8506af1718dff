"""What merging asks of the machine before it begins, and how an output that can't be made is told."""

import importlib
import json
import sys
from collections.abc import Sequence
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
from finetune_operator.core.artifacts import MANIFEST_NAME
from finetune_operator.core.merged_weights import weights_manifest
from tests.builders import make_result
from tests.images.ml_environment import REPOSITORY
from tests.images.training import exporting

GIB = 1 << 30


@pytest.fixture(scope="module")
def exports() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "trainer_image"))
    try:
        importlib.import_module("publish")
        importlib.import_module("finishing")
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


class Killed(BaseException):
    """No word is said after it."""


@pytest.fixture
def merging(exports: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Merging as it is told to a tool that only writes a manifest, and a conversion in which the trainer is killed."""
    told: list[str] = []

    def run_tool(script: str, what: str, arguments: Sequence[str]) -> None:
        if script == "convert.py":
            raise Killed
        told.extend(arguments)
        options = dict(zip(arguments[::2], arguments[1::2], strict=False))
        output = Path(options["--output"])
        output.mkdir()
        manifest = weights_manifest(options["--base-model-name"], options["--adapter-digest"], ())
        (output / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))

    monkeypatch.setattr(exports, "run_tool", run_tool)
    monkeypatch.setattr(exports, "precision", lambda: ("bfloat16", 2))
    monkeypatch.setattr(exports, "count_weights", lambda base: 1000)
    monkeypatch.setattr(exports, "available_memory_bytes", lambda: 8 * GIB)
    return told


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return tmp_path / "base"


def test_whoever_is_killed_after_the_merge_has_told_its_digest(merging: list[str], base: Path, tmp_path: Path) -> None:
    finish = importlib.import_module("finishing").finish
    config = exporting(base, Output.MERGED_WEIGHTS, Output.GGUF_Q8)
    paths, said = JobPaths.of(config, str(tmp_path)), tmp_path / "said"
    Path(paths.directory).mkdir(parents=True)
    digest = weights_manifest("tiny", str(make_result().adapter_digest), ()).digest

    for _ in ("the first attempt merges", "the second finds that done"):
        said.unlink(missing_ok=True)
        with pytest.raises(Killed):
            finish(config, paths, "attempt", make_result(), said)
        told = TrainingResult.model_validate_json(said.read_bytes())
        assert told.merged_digest == digest
        assert [error.output for error in told.output_errors] == [Output.GGUF_Q8]

    assert merging.count("--adapter-digest") == 1


def test_an_attempt_that_finds_all_made_tells_the_digest_first_of_all(
    merging: list[str], base: Path, tmp_path: Path
) -> None:
    """Its first word may be its last."""
    config = exporting(base, Output.MERGED_WEIGHTS)
    paths = JobPaths.of(config, str(tmp_path))
    Path(paths.directory).mkdir(parents=True)
    finishing = importlib.import_module("finishing")
    done = finishing.finish(config, paths, "attempt", make_result(), tmp_path / "said")

    finishing.keep(config, paths, make_result(), tmp_path / "said")

    told = TrainingResult.model_validate_json((tmp_path / "said").read_bytes())
    assert told.merged_digest == done.merged_digest is not None
    assert told.output_errors == ()


def test_a_broken_manifest_costs_the_merged_weights_and_not_the_training(exports: ModuleType, tmp_path: Path) -> None:
    config = exporting(tmp_path, Output.MERGED_WEIGHTS)
    paths = JobPaths.of(config, str(tmp_path))
    Path(paths.merged).mkdir(parents=True)
    Path(paths.merged / MANIFEST_NAME).write_text("{")

    assert exports.merged_digest(config, paths) is None


def test_a_tool_that_takes_too_long_is_told_as_such(exports: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "TOOL_TIMEOUT_SECONDS", 0.01)

    with pytest.raises(RuntimeError, match=r"merging took more than 0.01 s: is the artifacts volume that slow\?"):
        exports.run_tool("merge.py", "merging", ["--help"])


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
