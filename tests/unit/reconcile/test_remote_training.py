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
from finetune_operator.manifests.cancellation import cancellation_job, cancellation_job_name
from finetune_operator.reconcile.finetunejob import Observed, abandoned, is_finished, reconcile
from finetune_operator.reconcile.modelversion import Observed as SeenOfVersion
from finetune_operator.reconcile.modelversion import reconcile as reconcile_version
from finetune_operator.reconcile.plan import Create, Delete, Plan
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


def test_a_retired_version_says_so_though_nothing_was_loaded() -> None:
    _, create = done(None, CONFIG)
    body = create.body | {"metadata": create.body["metadata"] | {"uid": "uid-of-v1"}}
    version = ModelVersion.parse(body | {"spec": body["spec"] | {"state": "Archived"}})

    settled = after(version, reconcile_version(version, SeenOfVersion(), NOON, CONFIG))

    assert (settled.status.state, settled.status.message) == (State.ARCHIVED, "spec.state is Archived")


def test_a_refusal_of_the_provider_is_told_with_its_remedy() -> None:
    failure = make_failure(FailureReason.PROVIDER_REFUSED, "no quota", "pay first")

    job = after(JOB, reconcile(JOB, seen(terminated(42, wire(failure)), failed=True), NOON, CONFIG))

    stalled = find(job.status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.reason, stalled.message) == ("ProviderRefused", "no quota: pay first")


PROVIDER = JOB.spec.openai
assert PROVIDER is not None
CANCELLATION = Create("jobs", cancellation_job(JOB, PROVIDER, CONFIG), JOB.metadata.uid)
CANCELLATION_NAME = cancellation_job_name(JOB)


def wanting(job: FineTuneJob, **spec: bool) -> FineTuneJob:
    return job.model_copy(update={"spec": job.spec.model_copy(update=spec)})


def decide(job: FineTuneJob, world: Observed) -> Plan:
    return reconcile(job, world, NOON, CONFIG)


def suspended() -> FineTuneJob:
    """It has begun, and has no pod: the provider trains on."""
    job = wanting(after(JOB, decide(JOB, seen(running()))), suspend=True)
    job = after(job, decide(job, Observed(job_facts(job_body(JOB.metadata.uid, suspended=True)))))
    assert job.status.phase is Phase.SUSPENDED
    return job


def cancelling(*conditions: Object) -> Observed:
    """The training's own Job is gone, and another one cancels at the provider."""
    return Observed(cancellation=job_facts(job_body("", name=CANCELLATION_NAME, conditions=conditions)))


class TestCancelledAtTheProvider:
    """The operator has no key, and a training that has no pod has nobody to cancel it."""

    def test_what_is_cancelled_while_it_is_suspended_is_cancelled_there_by_a_job_of_its_own(self) -> None:
        job = wanting(suspended(), cancel=True)
        own = Observed(job_facts(job_body(JOB.metadata.uid, suspended=True)))
        assert [type(action) for action in decide(job, own).actions] == [Delete]

        plan = decide(job, Observed())
        assert plan.actions == (CANCELLATION,)
        job = after(job, plan)
        assert not is_finished(job)
        reconciling = find(job.status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "CancellingAtProvider"
        assert decide(job, cancelling()) == Plan(status=job.status.to_dict())

        job = after(job, decide(job, cancelling(job_condition("Complete"))))
        assert (job.status.phase, is_finished(job)) == (Phase.CANCELLED, True)
        assert "remote" not in (job.status.message or "")

    def test_a_pod_that_was_told_to_leave_may_have_been_stopped_while_it_made_the_job(self) -> None:
        """Its own look came too early; this one comes once it has ended."""
        job = wanting(after(JOB, decide(JOB, seen(running()))), cancel=True)
        leaving = Observed(None, seen(running()).pods)
        assert decide(job, leaving).actions == ()
        assert decide(job, Observed()).actions == (CANCELLATION,)

    def test_what_could_not_be_cancelled_is_said(self) -> None:
        job = wanting(suspended(), cancel=True)
        status = after(job, decide(job, cancelling(job_condition("Failed", "DeadlineExceeded")))).status
        assert status.phase is Phase.CANCELLED
        assert f"Job {CANCELLATION_NAME} could not cancel at the provider" in (status.message or "")
        assert "finetune-operator remote strays" in (status.message or "")

    @pytest.mark.parametrize("job", [wanting(JOB, cancel=True), wanting(JOB, cancel=True, suspend=True)])
    def test_what_has_not_begun_asks_nobody(self, job: FineTuneJob) -> None:
        plan = decide(job, Observed())
        assert plan.actions == ()
        assert after(job, plan).status.phase is Phase.CANCELLED

    def test_no_other_backend_asks_a_provider(self) -> None:
        job = after(make_job(), reconcile(make_job(), Observed(), NOON, CONFIG))
        assert decide(wanting(job, cancel=True), Observed()).actions == ()
        assert abandoned(job, CONFIG) == Plan()

    @pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded"])
    def test_what_fails_without_a_word_of_its_pod_is_cancelled_before_it_is_final(self, reason: str) -> None:
        job = after(JOB, decide(JOB, seen(running())))
        failed = Observed(job_facts(job_body(JOB.metadata.uid, conditions=(job_condition("Failed", reason),))))
        assert decide(job, failed).actions == (CANCELLATION,)
        ended = replace(failed, cancellation=cancelling(job_condition("Complete")).cancellation)
        assert after(job, decide(job, ended)).status.phase is Phase.FAILED
        given_up = replace(failed, cancellation=cancelling(job_condition("Failed", "x")).cancellation)
        assert "may go on and cost" in (after(job, decide(job, given_up)).status.message or "")

    def test_a_queue_that_it_would_never_leave_is_not_waited_for(self) -> None:
        job = wanting(suspended(), cancel=True)
        held = Observed(cancellation=job_facts(job_body("", name=CANCELLATION_NAME, held=True)))
        assert "could not cancel at the provider" in (after(job, decide(job, held)).status.message or "")
        labels = {"kueue.x-k8s.io/queue-name": "gpus"}
        queued = Observed(cancellation=job_facts(job_body("", name=CANCELLATION_NAME, held=True, labels=labels)))
        assert not is_finished(after(job, decide(job, queued)))

    def test_a_refusal_of_the_provider_leaves_nothing_to_cancel(self) -> None:
        job = after(JOB, decide(JOB, seen(running())))
        failure = make_failure(FailureReason.PROVIDER_REFUSED, "no quota", "pay first")
        plan = decide(job, seen(terminated(42, wire(failure)), failed=True))
        assert plan.actions == ()
        assert is_finished(after(job, plan))

    def test_what_is_deleted_before_its_end_is_cancelled(self) -> None:
        assert abandoned(suspended(), CONFIG) == Plan(actions=(CANCELLATION,))
        assert abandoned(JOB, CONFIG) == Plan(), "not begun"
        finished = after(
            JOB, decide(JOB, seen(terminated(42, wire(make_failure(FailureReason.PROVIDER_REFUSED))), failed=True))
        )
        assert abandoned(finished, CONFIG) == Plan()
