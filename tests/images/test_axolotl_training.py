"""Backend Axolotl, really training by Axolotl's own trainer: outcome, progress, interruptions, refusals.

Its attempts are forks of one process that has imported Axolotl, in an environment of its image's own packages.
"""

import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterManifest
from finetune_operator.contract.evaluation import EvaluationConfig, Metric
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.training import EarlyStopping, LoraConfig, StartingAdapter, TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME, adapter_digest, is_allowed
from tests.images.training import Job, TrainerHost, make_job, progress_server

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]
EXIT_TERMINATED = 143
SHAPE = LoraConfig(r=8, alpha=16, dropout=0.0)


@pytest.fixture(scope="module")
def axolotl_host(axolotl_python: Path) -> Iterator[TrainerHost]:
    host = TrainerHost(axolotl_python, "Axolotl")
    yield host
    host.close()


@pytest.fixture(scope="module")
def job(axolotl_python: Path, base_model: Path, artifacts: Path, axolotl_host: TrainerHost) -> Iterator[MakeJob]:
    made: list[Job] = []

    def make(name: str, rows: Rows, **options: Any) -> Job:
        options = {"backend": "Axolotl", "lora": SHAPE} | options
        made.append(make_job(axolotl_python, base_model, artifacts, name, rows, host=axolotl_host, **options))
        return made[-1]

    yield make
    for each in made:
        each.kill_all()


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate(job.outcome())


def losses(job: Job) -> dict[int, float]:
    """By step, the last attempt's word on a step that was done twice."""
    return {entry["step"]: entry["loss"] for attempt in job.attempts for entry in attempt.lines("step")}


@pytest.fixture(scope="module")
def trained(job: MakeJob, conversations: Rows) -> Iterator[tuple[Job, list[Any]]]:
    """A training from start to end, and what it reported."""
    with progress_server() as api:
        scores = EvaluationConfig(metrics=(Metric.TOKEN_ACCURACY,), max_examples=4)
        whole = job("axolotl", conversations, epochs=3, save_steps=8, evaluation=scores, progress_url=api.url)
        whole.run()
        yield whole, api.received


def test_it_lowers_the_held_out_loss(trained: tuple[Job, list[Any]]) -> None:
    result = result_of(trained[0])

    assert result.test_loss is not None
    assert result.base_test_loss is not None
    assert result.test_loss < result.base_test_loss - 0.2
    assert result.epochs == pytest.approx(3, abs=0.1)
    assert result.versions["axolotl"] == "0.19.0"
    assert "unsloth" not in result.versions
    assert result.evaluation is not None
    assert result.evaluation.error is None


def test_the_adapter_is_published_whole_and_alone(trained: tuple[Job, list[Any]]) -> None:
    done, _ = trained
    manifest = AdapterManifest.model_validate_json((done.adapter / MANIFEST_NAME).read_bytes())
    names = {path.name for path in done.adapter.iterdir()}

    assert names == {file.name for file in manifest.files} | {MANIFEST_NAME}
    assert all(map(is_allowed, names))
    assert adapter_digest(manifest.files) == manifest.digest == result_of(done).adapter_digest
    assert manifest.rank == SHAPE.r
    left = {path.name for path in Path(done.paths.directory).iterdir()}
    assert left == {"adapter", "artifacts.json", "dataset", "lock", "result.json", "train.log"}


def test_its_progress_is_a_series_with_tokens_and_checkpoints(trained: tuple[Job, list[Any]]) -> None:
    done, received = trained
    steps = [point.step for point in received]
    last = received[-1]

    assert steps[0] == 0
    assert steps == sorted(steps)
    assert (last.step, last.percent, last.eta_seconds) == (last.total_steps, 100, 0)
    assert last.loss < max(point.loss for point in received if point.loss is not None) - 0.5
    assert last.learning_rate is not None
    assert last.grad_norm > 0
    assert last.tokens == result_of(done).tokens > 0
    assert last.checkpoint_step > last.total_steps - 8


def test_killed_and_asked_to_leave_it_goes_on_with_the_same_losses(
    job: MakeJob, conversations: Rows, trained: tuple[Job, list[Any]]
) -> None:
    whole, _ = trained
    interrupted = job("axolotl-interrupted", conversations, epochs=3, save_steps=8)

    killed = interrupted.start()
    killed.wait_for("checkpoint")
    assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    asked = interrupted.start()
    asked.wait_for("step")
    assert asked.signal(signal.SIGTERM) == EXIT_TERMINATED
    left_at = asked.wait_for("asked to leave; the next attempt goes on from here")["step"]
    last = interrupted.run()

    assert asked.lines("training")[0]["resumed_from"].startswith("checkpoint-")
    assert last.lines("training")[0]["resumed_from"] == f"checkpoint-{left_at}"
    assert losses(interrupted) == pytest.approx(losses(whole), abs=1e-3)
    assert result_of(interrupted).test_loss == pytest.approx(result_of(whole).test_loss, abs=1e-3)
    assert result_of(interrupted).tokens == result_of(whole).tokens


def test_pairs_from_an_earlier_version(
    job: MakeJob, preferences: Rows, artifacts: Path, trained: tuple[Job, list[Any]]
) -> None:
    earlier = trained[0]
    start = StartingAdapter(
        model_version="plato-v1", path=str(earlier.adapter), digest=str(result_of(earlier).adapter_digest)
    )
    preferred = job(
        "axolotl-dpo", preferences, method="DPO", learning_rate=5e-4, epochs=3, init_from=start, eval_steps=10
    )
    attempt = preferred.run()

    result = result_of(preferred)
    assert attempt.lines("goes on from an earlier version")
    assert attempt.lines("evaluated")
    assert result.init_from == start
    assert result.base_test_loss == pytest.approx(math.log(2))
    assert result.test_loss is not None
    assert result.test_loss < 0.6
    assert result.tokens is not None
    assert result.tokens > 0


def test_it_stops_early_by_the_held_out_loss(job: MakeJob, conversations: Rows) -> None:
    stopping = job(
        "axolotl-early",
        conversations,
        epochs=100,
        learning_rate=5e-2,
        early_stopping=EarlyStopping(patience=1),
        eval_steps=5,
    )
    attempt = stopping.run()

    evaluated = [entry["eval_loss"] for entry in attempt.lines("evaluated") if "eval_loss" in entry]
    assert attempt.lines("the held-out loss no longer falls")
    assert result_of(stopping).test_loss == pytest.approx(min(evaluated), rel=0.05)


REFUSED: dict[str, tuple[dict[str, Any], FailureReason, str]] = {
    "an optimizer that Axolotl lacks": ({"optimizer": "adam_of_old"}, FailureReason.INVALID_CONFIG, "adam_of_old"),
    "rows that are all too long": ({"max_seq_length": 8}, FailureReason.DATASET_INVALID, "spec.training.maxSeqLength"),
    "layers that the model lacks": (
        {"lora": SHAPE.model_copy(update={"target_modules": ("c_attn",)})},
        FailureReason.INVALID_CONFIG,
        "spec.lora.targetModules",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(job: MakeJob, conversations: Rows, case: str) -> None:
    options, reason, told = REFUSED[case]
    refused = job(f"axolotl-refused-{list(REFUSED).index(case)}", conversations, **options)

    refused.start().expect(EXIT_CODES[reason])

    failure = Failure.model_validate(refused.outcome())
    assert failure.reason == reason
    assert told in f"{failure.message} {failure.remedy}"
