"""What a batch inference cost, and of whom its tokens are."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.core.config import OperatorConfig
from finetune_operator.reconcile.batch_inference import reconcile
from finetune_operator.resources.batch_inference import BatchInference, BatchInferenceStatus
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    job_condition,
    make_batch,
    make_batch_report,
    make_result_file,
    make_version,
    running,
)
from tests.unit.reconcile.test_batch_inference import FAILED, job, pod, said, world

BESIDE = {"compareWith": {"modelVersion": "plato-v2"}}
BESIDE_BASE = {"compareWith": {"base": True}}


def priced(number: int = 1, currency: str = "USD", **changes: str) -> ModelVersion:
    cost = {"currency": currency, "base": "3", "fineTuned": "2"} | changes
    evaluation = {"id": "e", "time": "2026-11-20T12:00:00Z", "engine": "e", "examples": 1, "metrics": []}
    return make_version(number, status={"evaluation": evaluation | {"costPerMillionTokens": cost}})


def report(*completion_tokens: int) -> BatchReport:
    names = ("plato-v1", "other")
    return make_batch_report(
        *(
            make_result_file(name, completion_tokens=tokens)
            for name, tokens in zip(names, completion_tokens, strict=False)
        )
    )


def ended(
    spec: Object, versions: tuple[ModelVersion, ...], told: BatchReport, config: OperatorConfig = CONFIG
) -> BatchInferenceStatus:
    batch = make_batch(spec)
    going = after(batch, reconcile(batch, world(job(batch), pod(running()), versions=versions), NOON, config))
    seen = world(job(batch, job_condition("Complete")), said(told), versions=versions)
    return status_of(going, seen, config)


def status_of(batch: BatchInference, seen: Any, config: OperatorConfig = CONFIG) -> BatchInferenceStatus:
    return BatchInferenceStatus.model_validate(reconcile(batch, seen, NOON + timedelta(seconds=9), config).status)


KNOWN: dict[str, tuple[Object, tuple[ModelVersion, ...], BatchReport, str, str]] = {
    "of one": (
        {}, (priced(),), report(3_000_000), "6", "plato-v1: 3000000 generated tokens x 2 USD per million (price of",
    ),
    "beside another": (
        BESIDE, (priced(), priced(2, fineTuned="4")), report(500_000, 250_000), "2", "; plato-v2: 250000 generated",
    ),
    "beside its base model": (
        BESIDE_BASE, (priced(),), report(500_000, 1_000_000), "4", "its base model: 1000000 generated tokens x 3 USD",
    ),
    "of nothing": ({}, (priced(),), report(0), "0", "plato-v1: 0 generated tokens"),
}  # fmt: skip
UNKNOWN: dict[str, tuple[Object, tuple[ModelVersion, ...], str]] = {
    "not measured": ({}, (make_version(1),), "plato-v1: its engine's speed was not measured: set spec.evaluation"),
    "one of two not measured": (BESIDE, (priced(), make_version(2)), "plato-v2: its engine's speed was not measured"),
    "gone": ({}, (), "plato-v1: the ModelVersion is gone"),
    "two currencies": (BESIDE, (priced(), priced(2, "EUR")), "prices in EUR and USD, which are not added up"),
    "no amount of the base model": (
        BESIDE_BASE, (priced(base="NaN"),), "its base model: its speed was not measured beside the version's",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "versions", "told", "spent", "basis"), KNOWN.values(), ids=KNOWN.keys())
def test_tokens_times_price(
    spec: Object, versions: tuple[ModelVersion, ...], told: BatchReport, spent: str, basis: str
) -> None:
    cost = ended(spec, versions, told).cost
    assert cost is not None
    assert (cost.spent, cost.currency, cost.unknown) == (spent, "USD", None)
    assert basis in str(cost.basis)


@pytest.mark.parametrize(("spec", "versions", "reason"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_an_unknown_cost_says_what_makes_it_known(
    spec: Object, versions: tuple[ModelVersion, ...], reason: str
) -> None:
    cost = ended(spec, versions, report(1, 1)).cost
    assert cost is not None
    assert (cost.spent, cost.basis) == (None, None)
    assert reason in str(cost.unknown)


def test_tokens_are_told_by_version() -> None:
    results = ended(BESIDE_BASE, (priced(),), report(5, 7)).results
    assert results is not None
    told = [(each.version_uid, each.prompt_tokens, each.completion_tokens) for each in results.models]
    assert told == [("uid-of-plato-v1", 120, 5), (None, 120, 7)]


def test_one_without_results_says_why_it_has_no_cost() -> None:
    batch = make_batch()
    going = after(batch, reconcile(batch, world(job(batch), pod(running())), NOON, CONFIG))
    failed = status_of(going, world(job(batch, FAILED), said("", 1)))
    assert failed.cost is not None
    assert "only a BatchInference that runs to its end has a cost" in str(failed.cost.unknown)
    never_begun = make_batch({"cancel": True})
    assert status_of(never_begun, world()).cost is None
