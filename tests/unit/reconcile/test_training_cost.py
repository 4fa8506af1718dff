"""What a training has cost and will cost, as far as prices and time are known."""

from datetime import datetime

from finetune_operator.core.conditions import find, is_true
from finetune_operator.reconcile.finetunejob import reconcile
from finetune_operator.resources.common import ConditionStatus
from tests.builders import (
    CONFIG,
    NOON,
    after,
    job_condition,
    make_job,
    make_result,
    running,
    terminated,
    training_pod,
    wire,
)
from tests.unit.reconcile.priced_trainings import (
    JOB,
    PRICED,
    changed,
    cost,
    decide,
    measured,
    trained,
    trainer_pod,
    world,
)
from tests.unit.reconcile.trainings import PREPARED, status_of


class TestCost:
    def test_ten_minutes_of_a_gpu_and_twenty_to_come(self) -> None:
        """3.60 an hour is a tenth of a cent a second."""
        plan = decide(JOB, world(trainer_pod(), progress=measured(eta_seconds=1200)))
        assert cost(plan) == ("0.6000", "1.80")
        status = status_of(plan)
        assert status.cost is not None
        assert (status.cost.currency, status.cost.basis) == (
            "USD",
            "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour",
        )
        assert is_true(status.conditions, "CostKnown")

    def test_without_an_end_in_sight_there_is_no_estimate(self) -> None:
        assert cost(decide(JOB, world(trainer_pod()))) == ("0.6000", None)

    def test_a_job_without_a_gpu_is_priced_by_its_cores(self) -> None:
        job = make_job({"resources": {"requests": {"cpu": "2"}}})
        assert cost(decide(job, world(trainer_pod()))) == ("0.0120", None)

    def test_the_clock_alone_writes_nothing(self) -> None:
        job = trained()
        assert decide(job, world(trainer_pod()), 3600).status == job.status.to_dict()

    def test_it_moves_with_the_progress(self) -> None:
        job = after(JOB, decide(JOB, world(trainer_pod(), progress=measured(402))))
        plan = decide(job, world(trainer_pod(), progress=measured(450, eta_seconds=600)), 600)
        assert cost(plan) == ("1.20", "1.80")

    def test_failed_attempts_count(self) -> None:
        crashed = trainer_pod("pod-1", trainer=terminated(1, finished="2026-01-01T11:55:00Z"), phase="Failed")
        again = trainer_pod("pod-2", created="2026-01-01T11:56:00Z")
        assert cost(decide(JOB, world(crashed, again))) == ("0.9000", None)

    def test_suspended_attempts_count_although_their_pods_are_deleted(self) -> None:
        """Kubernetes deletes the pods of a suspended Job."""
        asked = changed(trained(), suspend=True)
        stopping = after(asked, decide(asked, world(trainer_pod())))
        gone = after(stopping, decide(stopping, world(suspended=True), 30))
        assert gone.status.cost is not None
        assert gone.status.cost.spent == "0.6300"
        resumed = changed(gone, suspend=False)
        later = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T13:00:00Z"}
        pod = training_pod("pod-2", prepare=PREPARED, trainer=running(), conditions=(later,))
        plan = reconcile(resumed, world(pod), datetime.fromisoformat("2026-01-01T13:10:00Z"), PRICED)
        assert cost(plan) == ("1.23", None)
        assert status_of(plan).attempts == 2

    def test_an_unknown_price_is_no_0(self) -> None:
        plan = reconcile(JOB, world(trainer_pod()), NOON, CONFIG)
        status = status_of(plan)
        assert cost(plan) == (None, None)
        known = find(status.conditions, "CostKnown")
        assert known is not None
        assert (known.status, known.reason) == (ConditionStatus.FALSE, "NoPrice")
        assert 'set prices.perHour."nvidia.com/gpu"' in known.message

    def test_a_price_that_comes_later_prices_the_time_before(self) -> None:
        job = after(JOB, reconcile(JOB, world(trainer_pod()), NOON, CONFIG))
        assert cost(decide(job, world(trainer_pod()), 60)) == ("0.6600", None)

    def test_the_end_settles_it(self) -> None:
        pod = trainer_pod(
            trainer=terminated(0, wire(make_result()), finished="2026-01-01T11:58:00Z"), phase="Succeeded"
        )
        plan = decide(trained(), world(pod, conditions=(job_condition("Complete"),)), 3600)
        assert cost(plan) == ("0.4800", None)
