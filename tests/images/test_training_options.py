"""Packing, early stopping, further arguments and starting from an earlier version, really trained."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterManifest
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.training import EarlyStopping, LoraConfig, StartingAdapter, TrainingResult
from finetune_operator.core.artifacts import MANIFEST_NAME
from tests.images.training import Job, progress_server

MakeJob = Callable[..., Job]
Rows = list[dict[str, Any]]


def result_of(job: Job) -> TrainingResult:
    return TrainingResult.model_validate(job.outcome())


@pytest.mark.parametrize("backend", ["Unsloth", "HuggingFace"])
def test_packed_conversations_make_fewer_steps_and_do_not_see_each_other(
    job: MakeJob, conversations: Rows, backend: str
) -> None:
    packed = job(f"packed-{backend}".lower(), conversations, backend=backend, packing=True, epochs=4)
    attempt = packed.run()

    assert [line["attended_by_conversation"] for line in attempt.lines("packed rows")] == [True]
    (tried,) = attempt.lines("packing")
    assert tried["loss_packed"] == pytest.approx(tried["loss_alone"], rel=1e-3)
    rows = attempt.lines("training")[0]["rows"]
    assert tried["sequences"] < rows / 3
    result = result_of(packed)
    assert result.steps <= 4 * -(-tried["sequences"] // 8)
    assert result.test_loss is not None
    assert result.base_test_loss is not None
    assert result.test_loss < result.base_test_loss


def test_early_stopping_ends_the_training_and_publishes_the_best_evaluation(job: MakeJob, conversations: Rows) -> None:
    """At a learning rate that ruins the model; the best of its evaluations is the first."""
    options: dict[str, Any] = {"learning_rate": 2e-2, "lr_scheduler": "constant", "eval_steps": 4}
    with progress_server() as api:
        stopped = job(
            "stopped-early",
            conversations,
            progress_url=api.url,
            epochs=50,
            early_stopping=EarlyStopping(patience=2),
            **options,
        )
        attempt = stopped.run()
    evaluated = [(entry["step"], entry["eval_loss"]) for entry in attempt.lines("evaluated")]
    best_step, best = min(evaluated, key=lambda each: each[1])
    assert evaluated[-1][0] == best_step + 2 * 4
    assert result_of(stopped).steps == evaluated[-1][0] < 50 * 16
    assert {point.eval_loss for point in api.received} >= {None, best}
    assert (api.received[-1].step, api.received[-1].percent) == (evaluated[-1][0], 100)

    until_then = job("until-the-best", conversations, max_steps=best_step, **options)
    until_then.run()
    assert result_of(stopped).test_loss == pytest.approx(result_of(until_then).test_loss, rel=1e-4)


def test_every_knob_is_taken_by_both_methods(job: MakeJob, conversations: Rows, preferences: Rows) -> None:
    knobs: dict[str, Any] = {
        "epochs": 1,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 0.3,
        "neftune_noise_alpha": 5.0,
        "optimizer": "adafactor",
        "eval_steps": 5,
        "arguments": {"adam_beta2": "0.98", "logging_first_step": "true"},
    }
    for method, rows in (("SFT", conversations), ("DPO", preferences)):
        knobbed = job(f"every-knob-{method}".lower(), rows, method=method, **knobs)
        attempt = knobbed.run()
        assert result_of(knobbed).steps == attempt.lines("training")[0]["rows"] // 8 + (
            attempt.lines("training")[0]["rows"] % 8 > 0
        )
        assert len(attempt.lines("evaluated")) >= 1


def started_from(origin: Job, **changes: Any) -> StartingAdapter:
    manifest = AdapterManifest.model_validate_json((origin.adapter / MANIFEST_NAME).read_bytes())
    values = {"model_version": "plato-v1", "path": str(origin.adapter), "digest": manifest.digest}
    return StartingAdapter(**(values | changes))


def test_a_training_goes_on_from_an_earlier_version(job: MakeJob, conversations: Rows, trained: Job) -> None:
    """One step at a learning rate of almost nothing leaves the earlier version's loss as it is."""
    start = started_from(trained)
    onward = job("onward", conversations, init_from=start, max_steps=1, learning_rate=1e-9)
    attempt = onward.run()

    assert attempt.lines("goes on from an earlier version")[0]["digest"] == start.digest
    result = result_of(onward)
    assert result.init_from == start
    assert result.test_loss == pytest.approx(result_of(trained).test_loss, rel=1e-3)
    assert result.adapter_digest
    assert onward.adapter != trained.adapter


@pytest.mark.parametrize("backend", ["Unsloth", "HuggingFace"])
def test_preferences_are_learned_on_top_of_an_earlier_version(
    job: MakeJob, preferences: Rows, trained: Job, backend: str
) -> None:
    options = {"method": "DPO", "backend": backend, "epochs": 1, "learning_rate": 5e-4}
    onward = job(f"onward-dpo-{backend}".lower(), preferences, init_from=started_from(trained), **options)
    onward.run()

    result = result_of(onward)
    assert result.init_from is not None
    assert result.test_loss is not None
    # That of a model which has learned nothing from the pairs: both answers are as likely as before.
    assert result.test_loss < math.log(2)


NOT_TAKEN: dict[str, tuple[dict[str, Any], FailureReason, str, str]] = {
    "an optimizer that needs a GPU": (
        {"optimizer": "adamw_8bit"},
        FailureReason.INVALID_CONFIG,
        "adamw_8bit does not work on this machine",
        "adamw_torch",
    ),
    "an argument that leaves the pod": (
        {"arguments": {"push_to_hub": "true"}},
        FailureReason.INVALID_CONFIG,
        "push_to_hub is refused",
        "spec.training.arguments",
    ),
    "arguments that TRL takes not together": (
        {"arguments": {"lr_scheduler_kwargs": '{"no_such": 1}'}, "lr_scheduler": "cosine"},
        FailureReason.INVALID_CONFIG,
        "no_such",
        "lr_scheduler_kwargs",
    ),
}


@pytest.mark.parametrize(("options", "reason", "fact", "remedy"), NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
def test_what_the_user_chose_wrongly_is_said(
    job: MakeJob,
    conversations: Rows,
    options: dict[str, Any],
    reason: FailureReason,
    fact: str,
    remedy: str,
    request: pytest.FixtureRequest,
) -> None:
    wrong = job(request.node.callspec.id.replace(" ", "-").lower(), conversations, **options)
    wrong.start().expect(EXIT_CODES[reason])

    failure = Failure.model_validate(wrong.outcome())
    assert failure.reason is reason
    assert fact in failure.message
    assert remedy in failure.remedy


def test_evaluation_without_held_out_rows_is_refused(job: MakeJob, conversations: Rows) -> None:
    empty = job("nothing-held-out", conversations, eval_steps=5)
    Path(empty.paths.test_rows).write_text("")
    empty.start().expect(EXIT_CODES[FailureReason.INVALID_CONFIG])

    assert "testFraction" in Failure.model_validate(empty.outcome()).remedy


UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any], FailureReason, str]] = {
    "another digest": ({"digest": "sha256:" + "0" * 64}, {}, FailureReason.ARTIFACT_INVALID, "digest"),
    "another rank": ({}, {"lora": LoraConfig(r=8)}, FailureReason.INVALID_CONFIG, "has r 16, this job has 8"),
    "other layers": (
        {},
        {"lora": LoraConfig(target_modules=("q_proj", "v_proj"))},
        FailureReason.INVALID_CONFIG,
        "has targetModules",
    ),
}


@pytest.mark.parametrize(("start", "options", "reason", "fact"), UNFIT.values(), ids=UNFIT.keys())
def test_a_version_that_does_not_fit_is_not_loaded(
    job: MakeJob,
    conversations: Rows,
    trained: Job,
    start: dict[str, Any],
    options: dict[str, Any],
    reason: FailureReason,
    fact: str,
    request: pytest.FixtureRequest,
) -> None:
    name = "unfit-" + request.node.callspec.id.replace(" ", "-")
    unfit = job(name, conversations, init_from=started_from(trained, **start), **options)
    unfit.start().expect(EXIT_CODES[reason])

    failure = Failure.model_validate(unfit.outcome())
    assert failure.reason is reason
    assert fact in failure.message
    assert "initFrom" in failure.remedy
