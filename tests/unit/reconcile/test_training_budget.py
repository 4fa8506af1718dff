"""A training with a budget: not begun, stopped in time, and gone on with."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.preflight import Preflight, Work
from finetune_operator.core.conditions import find
from finetune_operator.core.cost import GPU_TYPE_LABEL, PriceBook
from finetune_operator.core.workloads import JobFacts, job_facts, pod_facts
from finetune_operator.manifests.preparation import preparation_job_name
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.plan import Create, Delete, Patch, Plan
from finetune_operator.resources.common import Condition, ConditionStatus
from finetune_operator.resources.cost import Budget
from finetune_operator.resources.finetunejob import FineTuneJob, Phase
from tests.builders import (
    CONFIG,
    NOON,
    REPORT,
    after,
    job_body,
    job_condition,
    make_job,
    make_result,
    pod_body,
    terminated,
    wire,
)
from tests.unit.reconcile.priced_trainings import (
    KUBERNETES_JOB,
    ON_GPU,
    PRICED,
    QUEUE,
    changed,
    decide,
    measured,
    trainer_pod,
    world,
)
from tests.unit.reconcile.trainings import status_of

H100 = "NVIDIA-H100-80GB-HBM3"


def budgeted(max_cost: str = "1.00", currency: str = "USD", **options: Any) -> FineTuneJob:
    """Its pod takes a tenth of a cent a second, since ten minutes before noon."""
    return make_job({**ON_GPU, "budget": {"maxCost": max_cost, "currency": currency}}, **options)


def within_budget(plan: Plan) -> Condition:
    found = find(status_of(plan).conditions, "WithinBudget")
    assert found is not None
    return found


def is_stopped(plan: Plan) -> bool:
    patches = [action for action in plan.actions if isinstance(action, Patch)]
    return any(patch.body["spec"] == {"suspend": True} for patch in patches)


class TestRunning:
    def test_it_is_looked_at_again_when_its_budget_is_spent(self) -> None:
        """0.60 are spent at noon; nothing that the training tells is needed."""
        plan = decide(budgeted("0.602"), world(trainer_pod()))
        assert (plan.actions, plan.requeue_after_seconds) == ((), 2)
        assert within_budget(plan).status is ConditionStatus.TRUE

    def test_a_pod_that_only_downloads_is_looked_at_again_too(self) -> None:
        preparing = trainer_pod(trainer={"waiting": {"reason": "PodInitializing"}}, phase="Pending")
        plan = decide(budgeted("1.00"), world(preparing))
        assert plan.requeue_after_seconds is not None
        assert plan.requeue_after_seconds <= 400

    def test_a_stuck_training_is_stopped_when_it_is_spent(self) -> None:
        job = after(budgeted("1.00"), decide(budgeted("1.00"), world(trainer_pod())))
        plan = decide(job, world(trainer_pod()), 400)
        status = status_of(plan)
        assert is_stopped(plan)
        assert (status.phase, within_budget(plan).reason) == (Phase.SUSPENDED, "BudgetExceeded")
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "BudgetExceeded")]
        assert "raise spec.budget.maxCost above status.cost.spent" in (status.message or "")
        assert status.cost is not None
        assert status.cost.spent == "1.00"

    def test_it_is_told_once_and_the_clock_writes_nothing(self) -> None:
        job = after(budgeted("0.50"), decide(budgeted("0.50"), world(trainer_pod())))
        again = decide(job, world(trainer_pod(), suspended=True), 30)
        assert (again.actions, again.events, again.status) == ((), (), job.status.to_dict())

    def test_its_checkpoint_and_progress_stay(self) -> None:
        progress = measured(402, checkpoint_step=400, checkpoint_time=NOON)
        job = after(budgeted("0.70"), decide(budgeted("0.70"), world(trainer_pod(), progress=progress)))
        status = status_of(decide(job, world(trainer_pod()), 200))
        assert status.checkpoint is not None
        assert (status.phase, status.checkpoint.step) == (Phase.SUSPENDED, 400)

    def test_a_raised_budget_lets_it_go_on(self) -> None:
        stopped = after(budgeted("0.50"), decide(budgeted("0.50"), world(trainer_pod())))
        raised = changed(stopped, budget=Budget(max_cost="5.00"))
        plan = decide(raised, world(suspended=True), 60)
        assert plan.actions == (
            Patch(
                "jobs",
                KUBERNETES_JOB,
                {"metadata": {"annotations": {"finetune.dev/suspended": None}}, "spec": {"suspend": False}},
            ),
        )
        assert status_of(plan).phase is not Phase.SUSPENDED

    def test_a_budget_that_goes_takes_its_condition_along(self) -> None:
        stopped = after(budgeted("0.50"), decide(budgeted("0.50"), world(trainer_pod())))
        plan = decide(changed(stopped, budget=None), world(suspended=True), 60)
        assert find(status_of(plan).conditions, "WithinBudget") is None
        assert status_of(plan).phase is not Phase.SUSPENDED

    def test_in_a_queue_its_job_goes_with_its_place_in_the_quota(self) -> None:
        plan = decide(budgeted("0.50", labels={QUEUE: "gpus"}), world(trainer_pod(), labels={QUEUE: "gpus"}))
        assert plan.actions == (Delete("jobs", KUBERNETES_JOB, f"uid-of-{KUBERNETES_JOB}"),)

    def test_it_may_be_cancelled(self) -> None:
        stopped = after(budgeted("0.50"), decide(budgeted("0.50"), world(trainer_pod())))
        gone = decide(changed(stopped, cancel=True), world(gone=True), 120)
        assert status_of(gone).phase is Phase.CANCELLED

    def test_what_is_trained_is_published_whatever_it_cost(self) -> None:
        pod = trainer_pod(trainer=terminated(0, wire(make_result())), phase="Succeeded")
        plan = decide(budgeted("0.01"), world(pod, conditions=(job_condition("Complete"),)))
        assert status_of(plan).phase is Phase.SUCCEEDED


class TestBeforeItBegins:
    def test_without_a_price_nothing_is_made(self) -> None:
        plan = reconcile(budgeted(), Observed(), NOON, CONFIG)
        assert plan.actions == ()
        assert (status_of(plan).phase, within_budget(plan).reason) == (Phase.SUSPENDED, "PriceUnknown")
        assert 'set prices.perHour."nvidia.com/gpu"' in (status_of(plan).message or "")

    def test_another_currency_is_not_converted(self) -> None:
        plan = decide(budgeted(currency="EUR"), Observed())
        assert (plan.actions, within_budget(plan).reason) == ((), "OtherCurrency")

    def test_what_is_estimated_above_it_takes_no_gpu(self) -> None:
        plan = _prepared_with("1.00", flops=1e19)
        assert plan.actions == ()
        assert (status_of(plan).phase, within_budget(plan).reason) == (Phase.SUSPENDED, "EstimateOverBudget")
        assert status_of(plan).preflight is not None
        assert [event.reason for event in plan.events] == ["EstimateOverBudget"]

    def test_what_may_cost_more_begins_and_says_so(self) -> None:
        plan = _prepared_with("20.00", flops=1e19)
        assert within_budget(plan).reason == "MayExceedBudget"
        assert [action.plural for action in plan.actions if isinstance(action, Create)] == ["jobs"]

    def test_once_it_trains_its_estimate_counts_no_more(self) -> None:
        held = after(_typed("1.00"), _prepared_with("1.00", flops=1e19))
        trains = replace(world(trainer_pod(), progress=measured(402)), preparation=_preparation(held))
        assert within_budget(reconcile(held, trains, NOON, TYPED_PRICES)).reason == "WithinBudget"


TYPED_PRICES = replace(CONFIG, prices=PriceBook(gpu_types={H100: Decimal("3.60")}))


def _typed(max_cost: str) -> FineTuneJob:
    return make_job({**ON_GPU, "scheduling": {"nodeSelector": {GPU_TYPE_LABEL: H100}}, "budget": {"maxCost": max_cost}})


def _preparation(job: FineTuneJob) -> JobFacts:
    body = job_body(job.metadata.uid, name=preparation_job_name(job), conditions=(job_condition("Complete"),))
    return job_facts(body)


def _prepared_with(max_cost: str, flops: float) -> Plan:
    """Dataset and base model are there, and what the training takes is known."""
    job = _typed(max_cost)
    work = Work(steps=300, tokens=2_000_000, flops=flops, layer_passes=9600)
    report = REPORT.model_copy(update={"preflight": Preflight(memory_gib=12.0, least_memory_gib=5.0, work=work)})
    pod = pod_body("preparing", phase="Succeeded", main={"prepare": terminated(0, wire(report))})
    seen = Observed(preparation=_preparation(job), preparation_pods=(pod_facts(pod),))
    return reconcile(job, seen, NOON, TYPED_PRICES)


CENTS = st.integers(61, 500)
DELAYS = st.lists(st.floats(0, 3), min_size=1, max_size=8)


@given(CENTS, DELAYS)
def test_never_overspent_by_more_than_the_delay_of_a_look(cents: int, delays: list[float]) -> None:
    """Played with the real reconcile: nothing but its own timer brings the training back, late by up to 3 s."""
    job, now, stopped = budgeted(f"{cents / 100:.2f}"), NOON, False
    limit = Decimal(cents) / 100
    for turn in range(5000):
        plan = reconcile(job, world(trainer_pod()), now, PRICED)
        job = after(job, plan)
        if stopped := is_stopped(plan):
            break
        assert plan.requeue_after_seconds is not None
        now += timedelta(seconds=plan.requeue_after_seconds + delays[turn % len(delays)])
    assert stopped
    assert job.status.cost is not None
    assert job.status.cost.spent is not None
    per_second = Decimal("0.001")
    assert limit <= Decimal(job.status.cost.spent) + Decimal("0.005") < limit + per_second * 5 + Decimal("0.01")
