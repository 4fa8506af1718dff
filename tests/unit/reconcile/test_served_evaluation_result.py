"""What is told of a served version's evaluation: scores, speed, saturation, and what answers and tokens cost."""

from dataclasses import replace
from decimal import Decimal

import pytest

from finetune_operator.contract.evaluation import EngineMemory, MemoryOf, Saturation
from finetune_operator.core.cost import PriceBook
from finetune_operator.reconcile.served_evaluation import record_id
from tests.builders import CONFIG, EVALUATED, after
from tests.unit.reconcile.served_evaluations import (
    COMPLETE,
    ROUGE,
    TRAINED,
    WANTED,
    decide,
    identity,
    job_of,
    measured,
    records_of,
    said,
    status_of,
    version,
)

SATURATED = EVALUATED.model_copy(
    update={
        "base_saturation": Saturation(concurrency=64, requests_per_second=12.5, tokens_per_second=1000.0),
        "fine_tuned_saturation": Saturation(concurrency=32, requests_per_second=10.0, tokens_per_second=800.0),
    }
)


def test_the_result_is_in_the_status_side_by_side() -> None:
    status = measured(WANTED).status.evaluation
    assert status is not None
    assert status.to_dict() == {
        "id": identity(WANTED),
        "time": "2026-01-01T12:00:00Z",
        "engine": status.engine,
        "examples": 12,
        "metrics": [{"name": "RougeL", "base": "0.12", "fineTuned": "0.41"}],
        "domains": [{"domain": "ethics", "examples": 9, "name": "RougeL", "base": "0.1", "fineTuned": "0.5"}],
        "meanLatencySeconds": {"base": "1", "fineTuned": "1.1"},
        "p95LatencySeconds": {"base": "2", "fineTuned": "2.1"},
        "meanSecondsToFirstToken": {"base": "0.1", "fineTuned": "0.2"},
        "tokensPerSecond": {"base": "80", "fineTuned": "70"},
    }
    assert status.engine.startswith("vllm-")


def test_an_answer_costs_its_share_of_all_engine_pods_and_nothing_is_told_without_a_price() -> None:
    priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": Decimal("3.60")}))
    on_gpus = version(ROUGE, {"serving": {"resources": {"limits": {"nvidia.com/gpu": 2}}}})
    plan = decide(on_gpus, job_of(on_gpus, COMPLETE), pods=(said(EVALUATED),), config=priced)
    result = status_of(plan).evaluation
    assert result is not None
    assert result.cost_per_answer is not None
    # 2 GPUs at 0.001 EUR a second
    assert result.cost_per_answer.to_dict() == {"currency": "EUR", "base": "0.0005", "fineTuned": "0.001"}
    unknown = measured(on_gpus).status.evaluation
    assert unknown is not None
    assert unknown.cost_per_answer is None
    assert unknown.cost_per_million_tokens is None


def test_a_million_tokens_cost_what_the_engine_costs_while_it_makes_them() -> None:
    priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": Decimal("3.60")}))
    on_gpu = version(ROUGE, {"serving": {"resources": {"limits": {"nvidia.com/gpu": 1}}}})
    costs = []
    for report in (EVALUATED, SATURATED):
        plan = decide(on_gpu, job_of(on_gpu, COMPLETE), pods=(said(report),), config=priced)
        result = status_of(plan).evaluation
        assert result is not None
        assert result.cost_per_million_tokens is not None
        costs.append(result.cost_per_million_tokens.to_dict())
    # 0.001 EUR a second, at 80 and 70 tokens a second, and at saturation at 1000 and 800
    assert costs == [
        {"currency": "EUR", "base": "12.5", "fineTuned": "14.29"},
        {"currency": "EUR", "base": "1", "fineTuned": "1.25"},
    ]


def test_saturation_is_told_side_by_side_to_status_and_database() -> None:
    of = version(ROUGE)
    plan = decide(of, job_of(of, COMPLETE), pods=(said(SATURATED),))
    result = status_of(plan).evaluation
    assert result is not None
    assert result.saturation is not None
    assert result.saturation.to_dict() == {
        "requestsPerSecond": {"base": "12.5", "fineTuned": "10"},
        "tokensPerSecond": {"base": "1000", "fineTuned": "800"},
        "concurrency": {"base": "64", "fineTuned": "32"},
    }
    told = records_of(plan)[record_id(of, identity(of))]
    assert {name: value for name, value in told.items() if name.endswith("AtSaturation")} == {
        "requestsPerSecondAtSaturation": (12.5, 10.0),
        "tokensPerSecondAtSaturation": (1000.0, 800.0),
        "concurrencyAtSaturation": (64.0, 32.0),
    }


def test_memory_is_told_in_gigabytes_to_status_and_database() -> None:
    of = version(ROUGE)
    taken = {
        "base_memory": EngineMemory(of=MemoryOf.CONTAINER, size_bytes=1_500_000_000),
        "fine_tuned_memory": EngineMemory(of=MemoryOf.CONTAINER, size_bytes=1_620_000_000),
    }
    plan = decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED.model_copy(update=taken)),))
    result = status_of(plan).evaluation
    assert result is not None
    assert result.memory_gigabytes is not None
    assert result.memory_gigabytes.to_dict() == {"of": "Container", "base": "1.5", "fineTuned": "1.62"}
    assert records_of(plan)[record_id(of, identity(of))]["memoryGigabytes"] == (1.5, 1.62)


@pytest.mark.parametrize(
    "base",
    [None, EngineMemory(of=MemoryOf.ACCELERATORS, size_bytes=80_000_000_000)],
    ids=["an engine that does not tell", "engines on unlike machines"],
)
def test_memory_that_cannot_be_compared_is_not_told(base: EngineMemory | None) -> None:
    of = version(ROUGE)
    tuned = EngineMemory(of=MemoryOf.CONTAINER, size_bytes=1_620_000_000)
    report = EVALUATED.model_copy(update={"base_memory": base, "fine_tuned_memory": tuned})
    result = status_of(decide(of, job_of(of, COMPLETE), pods=(said(report),))).evaluation
    assert result is not None
    assert result.memory_gigabytes is None


def test_a_result_is_told_by_one_event() -> None:
    plan = decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),))
    (told,) = [event for event in plan.events if event.reason == "Evaluated"]
    assert told.message == "plato-v2 is evaluated: RougeL 0.41 (base 0.12)"
    assert not [event for event in decide(after(WANTED, plan)).events if event.reason == "Evaluated"]


def test_the_versions_metrics_show_the_served_scores_before_the_trainings() -> None:
    metrics = measured(version(ROUGE, TRAINED)).status.metrics
    assert metrics is not None
    assert [(value.name, value.fine_tuned) for value in metrics.scores] == [("RougeL", "0.41"), ("F1", "0.8")]
