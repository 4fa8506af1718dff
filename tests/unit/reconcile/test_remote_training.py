"""A training that a provider does: what it costs, and the version that it publishes."""

from dataclasses import replace
from decimal import Decimal

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.remote import RemoteModel
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.modelversion import Observed as SeenOfVersion
from finetune_operator.reconcile.modelversion import reconcile as reconcile_version
from finetune_operator.reconcile.plan import Create
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import (
    CONFIG,
    NOON,
    REPORT,
    Object,
    after,
    job_body,
    job_condition,
    make_failure,
    make_job,
    make_result,
    running,
    terminated,
    training_pod,
    wire,
)

MODEL = "gpt-4.1-mini-2025-04-14"
URL = "https://api.openai.com/v1"
JOB = make_job(
    {
        "backend": "OpenAI",
        "openai": {"secretRef": {"name": "openai", "key": "api-key"}},
        "baseModel": {"source": {"volume": None, "openai": {"model": MODEL}}},
    }
)
PRICED = replace(CONFIG, prices=PriceBook(per_million_tokens={MODEL: Decimal("5")}, per_hour={"cpu": Decimal("9")}))
PREPARED = terminated(0, wire(REPORT))


def seen(trainer: Object, *, complete: bool = False, failed: bool = False) -> Observed:
    conditions = (job_condition("Complete"),) if complete else ()
    conditions += (job_condition("Failed", "PodFailurePolicy"),) if failed else ()
    phase = "Succeeded" if complete else "Failed" if failed else "Running"
    pod = training_pod(prepare=PREPARED, trainer=trainer, phase=phase)
    return Observed(job_facts(job_body(JOB.metadata.uid, conditions=conditions)), (pod_facts(pod),))


def done(cost: str | None, config: OperatorConfig) -> tuple[FineTuneJobStatus, Create]:
    """The job that has trained, and the version that it makes."""
    remote = RemoteModel(
        base_url=URL, model="ft:x", job="ftjob-1", trained_tokens=1500, cost=Decimal(cost) if cost else None
    )
    result = make_result(adapter_digest=None, remote=remote)
    plan = reconcile(JOB, seen(terminated(0, wire(result)), complete=True), NOON, config)
    (create,) = (action for action in plan.actions if isinstance(action, Create))
    return after(JOB, plan).status, create


def is_priced(job: FineTuneJob) -> bool:
    found = find(job.status.conditions, "CostKnown")
    assert found is not None
    return found.status == "True"


@pytest.mark.parametrize(
    ("config", "priced", "said"),
    [(PRICED, True, "trained tokens x 5 USD per million"), (CONFIG, False, f'prices.perMillionTokens."{MODEL}"')],
    ids=["priced", "unpriced"],
)
def test_the_price_is_the_providers_and_its_absence_is_said(config: OperatorConfig, priced: bool, said: str) -> None:
    job = after(JOB, reconcile(JOB, seen(running()), NOON, config))

    assert is_priced(job) is priced
    condition = find(job.status.conditions, "CostKnown")
    assert condition is not None
    assert said in condition.message
    assert job.status.cost is None or job.status.cost.spent is None, "nothing is known before its end"


def test_the_cost_is_what_the_provider_billed() -> None:
    status, _ = done("0.0075", PRICED)

    assert status.phase is Phase.SUCCEEDED
    assert status.cost is not None
    assert (status.cost.spent, status.cost.estimated, status.cost.currency) == ("0.0075", "0.0075", "USD")


def test_an_unknown_cost_is_not_nothing() -> None:
    status, _ = done(None, CONFIG)

    assert status.cost is None or (status.cost.spent, status.cost.estimated) == (None, None)


def test_the_version_is_registered_and_says_where_it_answers() -> None:
    _, create = done(None, CONFIG)
    body = create.body | {"metadata": create.body["metadata"] | {"uid": "uid-of-v1"}}
    version = ModelVersion.parse(body)

    settled = after(version, reconcile_version(version, SeenOfVersion(), NOON, CONFIG))

    assert settled.status.state is State.READY
    assert settled.status.engine is None
    assert settled.status.message == f"registered only; answers as ft:x at {URL}"


def test_a_refusal_of_the_provider_is_told_with_its_remedy() -> None:
    failure = make_failure(FailureReason.PROVIDER_REFUSED, "no quota", "pay first")

    job = after(JOB, reconcile(JOB, seen(terminated(42, wire(failure)), failed=True), NOON, CONFIG))

    stalled = find(job.status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.reason, stalled.message) == ("ProviderRefused", "no quota: pay first")
