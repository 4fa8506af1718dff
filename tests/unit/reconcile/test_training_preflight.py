"""The preflight in a FineTuneJob's status, with the installation's prices, and as events."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.preflight import Preflight, RemoteWork, Shape, TokenLengths, Work
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import GPU_TYPE_LABEL, PriceBook
from finetune_operator.core.model_shape import model_shape, told_shape
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus
from finetune_operator.resources.preflight import PreflightStatus
from tests.builders import (
    CONFIG,
    HUB_MODEL,
    NOON,
    REPORT,
    Object,
    after,
    job_body,
    make_job,
    running,
    terminated,
    training_pod,
    wire,
)

H100 = "NVIDIA-H100-80GB-HBM3"
PRICED = replace(CONFIG, prices=PriceBook(currency="EUR", gpu_types={H100: Decimal("3.90")}))
WORK = Work(steps=300, tokens=2_000_000, flops=1e17, layer_passes=9600)
LENGTHS = TokenLengths(
    method="Tokenizer", sampled_rows=2000, p50=210, p95=900, max=4100, over_length=25, unlearnable=0, mean=240.0,
    padded_mean=400.0,
)  # fmt: skip
FOUND = Preflight(
    parameters_billion=8.03, memory_gib=12.34, least_memory_gib=5.5, gpu_memory_gib=80, tokens=LENGTHS, work=WORK,
    warnings=("1 % of the rows are cut",),
)  # fmt: skip


def gpu_job(gpu_type: str | None = H100, gpus: int = 1, **spec: Object) -> FineTuneJob:
    selector = {GPU_TYPE_LABEL: gpu_type} if gpu_type else {}
    return make_job(
        {"resources": {"limits": {"nvidia.com/gpu": gpus}}, "scheduling": {"nodeSelector": selector}} | spec
    )


def plan_of(job: FineTuneJob, pod: Object, config: OperatorConfig = PRICED) -> Plan:
    seen = Observed(job_facts(job_body(job.metadata.uid)), (pod_facts(pod),))
    return reconcile(job, seen, NOON, config)


def preflight_of(job: FineTuneJob, found: Preflight = FOUND, config: OperatorConfig = PRICED) -> PreflightStatus:
    pod = training_pod(prepare=terminated(0, wire(_report(found))), trainer=running())
    status = FineTuneJobStatus.model_validate(plan_of(job, pod, config).status)
    assert status.preflight is not None
    return status.preflight


def _report(found: Preflight) -> DatasetReport:
    return REPORT.model_copy(update={"preflight": found})


def test_lengths_memory_time_and_cost_are_in_the_status() -> None:
    found = preflight_of(gpu_job())
    assert (found.parameters_billion, found.memory_gib, found.gpu_memory_gib, found.steps) == ("8.03", "12.3", 80, 300)
    assert found.tokens is not None
    assert (found.tokens.p50, found.tokens.p95, found.tokens.max) == (210, 900, 4100)
    assert (found.tokens.over_length_percent, found.tokens.trained) == ("1.2", 2_000_000)
    estimate = found.estimate
    assert estimate is not None
    # 1e17 operations at 0.6 and 0.25 of 989 TFLOP/s, or 9600 passes of a layer; 3.90 EUR an hour.
    assert (estimate.device, estimate.fits, estimate.time) == (H100, "Likely", "2m49s to 8m20s")
    assert (estimate.min_seconds, estimate.max_seconds) == (169, 500)
    assert (estimate.cost, estimate.currency) == ("0.18 to 0.54 EUR", "EUR")
    assert (estimate.min_cost, estimate.max_cost, estimate.message) == ("0.18", "0.54", None)


def test_other_gpu_types_are_compared() -> None:
    found = {each.device: each for each in preflight_of(gpu_job("NVIDIA-L4")).compared}
    assert list(found) == ["T4", "V100-32GB", "A10", "L4", "A100-80GB", "H100", "H200", "B200"]
    assert found["H100"].cost == "0.18 to 0.54 EUR"
    assert found["A100-80GB"].cost is None
    assert found["T4"].fits == "Likely"


def test_what_can_not_fit_has_no_time() -> None:
    found = {
        each.device: each for each in preflight_of(gpu_job(), _with(least_memory_gib=30.0, memory_gib=60.0)).compared
    }
    assert (found["L4"].fits, found["L4"].time) == ("No", None)
    assert (found["V100-32GB"].fits, found["H100"].fits) == ("Unlikely", "Likely")


def test_what_is_not_known_is_absent_with_a_reason() -> None:
    unpriced = preflight_of(gpu_job("NVIDIA-L4")).estimate
    assert unpriced is not None
    assert (unpriced.time is not None, unpriced.cost) == (True, None)
    assert "no price for nvidia.com/gpu" in (unpriced.message or "")
    untyped = preflight_of(gpu_job(None)).estimate
    assert untyped is not None
    assert (untyped.time, "names no GPU type" in (untyped.message or "")) == (None, True)
    unsized = preflight_of(gpu_job(), _with(work=None, parameters_billion=None, memory_gib=None))
    assert unsized.estimate is not None
    assert (unsized.compared, unsized.estimate.time) == ((), None)
    assert "of no dense decoder of Llama's shape: try training.maxSteps 10 first" in (unsized.estimate.message or "")
    uncounted = preflight_of(gpu_job(), _with(work=None)).estimate
    assert uncounted is not None
    assert "the rows' lengths are not known" in (uncounted.message or "")


def test_later_trainings_are_told_the_base_models_shape() -> None:
    dimensions = {
        "modelType": "llama", "hiddenSize": 64, "intermediateSize": 128, "numHiddenLayers": 2, "numAttentionHeads": 4,
        "vocabSize": 256,
    }  # fmt: skip
    found = preflight_of(gpu_job(), _with(shape=Shape.model_validate(dimensions)))
    assert found.shape is not None
    told = found.shape.model_dump(by_alias=True, exclude_none=True)
    assert (told, told_shape(told)) == (
        dimensions,
        model_shape(json.dumps(Shape.model_validate(dimensions).model_dump())),
    )
    assert told_shape(told | {"hiddenSize": 0}) is None


@pytest.mark.parametrize(
    ("prices", "cost", "message"),
    [
        (PriceBook(currency="EUR", per_million_tokens={"gpt-4.1-mini": Decimal("5")}), "0.30 EUR", ""),
        (PriceBook(), None, 'no price for training gpt-4.1-mini: set prices.perMillionTokens."gpt-4.1-mini"'),
    ],
)
def test_a_provider_is_told_by_tokens_and_price(prices: PriceBook, cost: str | None, message: str) -> None:
    at_provider = {"volume": None, "openai": {"model": "gpt-4.1-mini"}}
    job = make_job(
        {
            "backend": "OpenAI",
            "openai": {"secretRef": {"name": "openai", "key": "api-key"}},
            "baseModel": {"source": at_provider},
        }
    )
    found = preflight_of(job, Preflight(remote=RemoteWork(steps=30, tokens=60_000)), replace(CONFIG, prices=prices))
    assert (found.steps, found.memory_gib, found.compared) == (30, None, ())
    assert found.estimate is not None
    assert (found.estimate.device, found.estimate.cost) == ("gpt-4.1-mini at its provider", cost)
    assert (found.estimate.time, found.estimate.fits) == (None, None)
    assert (found.estimate.message or "").startswith(message)
    assert "a provider's time is not known" in (found.estimate.message or "")


def test_several_gpus_cost_as_much_and_are_told() -> None:
    alone = preflight_of(gpu_job()).estimate
    together = preflight_of(gpu_job(gpus=2), _with(work=WORK.model_copy(update={"processes": 4}))).estimate
    assert alone is not None
    assert together is not None
    assert together.device == f"4 x {H100}"
    assert together.min_seconds == alone.min_seconds
    assert (alone.min_cost, together.min_cost) == ("0.18", "0.73")


def test_a_cpu_is_estimated_by_its_cores() -> None:
    job = make_job({"resources": {"limits": {"cpu": 2}}})
    prices = replace(CONFIG, prices=PriceBook(per_hour={"cpu": Decimal("0.04")}))
    tiny = _with(work=Work(steps=300, tokens=150_000, flops=1e12, layer_passes=1200))
    found = preflight_of(job, tiny, prices).estimate
    assert found is not None
    assert (found.device, found.time) == ("2 CPU cores", "8s to 1m50s")
    assert found.cost is not None


def test_warnings_are_told_once() -> None:
    job = gpu_job()
    pod = training_pod(prepare=terminated(0, wire(_report(FOUND))), trainer=running())
    plan = plan_of(job, pod)
    assert [event.message for event in plan.events if event.reason == "Preflight"] == ["1 % of the rows are cut"]
    again = plan_of(after(job, plan), pod)
    assert [event for event in again.events if event.reason == "Preflight"] == []


def test_of_a_hub_model_the_download_tells() -> None:
    job = gpu_job(baseModel=HUB_MODEL)
    fetching = training_pod(prepare=terminated(0, wire(REPORT)), fetch=running())
    before = plan_of(job, fetching)
    assert FineTuneJobStatus.model_validate(before.status).preflight is None
    fetched = training_pod(prepare=terminated(0, wire(REPORT)), fetch=terminated(0, wire(FOUND)), trainer=running())
    plan = plan_of(after(job, before), fetched)
    found = FineTuneJobStatus.model_validate(plan.status).preflight
    assert found is not None
    assert found.steps == 300
    assert [event.message for event in plan.events if event.reason == "Preflight"] == ["1 % of the rows are cut"]


def _with(**changes: object) -> Preflight:
    return FOUND.model_copy(update=changes)
