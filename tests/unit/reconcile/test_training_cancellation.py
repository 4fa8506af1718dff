"""What becomes of a training that is cancelled, before, while and after it trains."""

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import job_facts
from finetune_operator.reconcile.finetunejob import Observed, is_finished
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import FineTuneJob, Phase
from tests.builders import NOON, after, job_body, job_condition, make_job, make_result, make_version, terminated, wire
from tests.unit.reconcile.priced_trainings import DELETE_JOB, UID, changed, cost, decide, trained, trainer_pod, world
from tests.unit.reconcile.trainings import status_of

CANCELLED = changed(trained(), cancel=True)


class TestCancel:
    def test_its_kubernetes_job_goes_and_with_it_the_pod(self) -> None:
        plan = decide(CANCELLED, world(trainer_pod()))
        assert plan.actions == (DELETE_JOB,)
        status = status_of(plan)
        assert status.phase is Phase.TRAINING
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "Cancelling"
        assert not is_finished(after(CANCELLED, plan))

    def test_it_is_final_when_the_last_pod_has_ended(self) -> None:
        waiting = decide(CANCELLED, world(trainer_pod(), gone=True))
        assert waiting.actions == ()
        assert status_of(waiting).phase is Phase.TRAINING
        plan = decide(CANCELLED, world(gone=True), 60)
        status = status_of(plan)
        assert (status.phase, status.completion_time) == (Phase.CANCELLED, NOON + timedelta(seconds=60))
        for type_ in ("Succeeded", "Trained", "Published", "Ready"):
            found = find(status.conditions, type_)
            assert found is not None
            assert (found.status, found.reason) == (ConditionStatus.FALSE, "Cancelled")
        for type_ in ("Reconciling", "Stalled", "Suspended"):
            assert find(status.conditions, type_) is None, type_
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Cancelled")]
        assert cost(plan) == ("0.6600", None)

    def test_nothing_brings_it_back(self) -> None:
        job = after(CANCELLED, decide(CANCELLED, world(gone=True)))
        for seen in (world(gone=True), world(trainer_pod()), world(conditions=(job_condition("Complete"),))):
            assert decide(job, seen, 60) == Plan(status=job.status.to_dict())

    @pytest.mark.parametrize("job", [make_job({"cancel": True}), make_job({"cancel": True, "suspend": True})])
    def test_what_has_not_begun_never_begins(self, job: FineTuneJob) -> None:
        plan = decide(job, world(gone=True))
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.CANCELLED

    def test_a_suspended_one_can_be_cancelled(self) -> None:
        job = make_job({"cancel": True, "suspend": True})
        assert decide(job, world(suspended=True)).actions == (DELETE_JOB,)

    def test_a_job_of_somebody_else_is_left_alone(self) -> None:
        foreign = Observed(job_facts(job_body("somebody-else")))
        plan = decide(make_job({"cancel": True}), foreign)
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.CANCELLED

    def test_it_comes_too_late_for_what_is_published(self) -> None:
        published = replace(world(trainer_pod()), versions=(make_version(4, {"lineage": {"jobUid": UID}}),))
        assert status_of(decide(CANCELLED, published)).phase is Phase.SUCCEEDED

    def test_it_comes_in_time_for_what_is_trained_but_not_published(self) -> None:
        done = trainer_pod(trainer=terminated(0, wire(make_result())), phase="Succeeded")
        plan = decide(CANCELLED, world(done, conditions=(job_condition("Complete"),)))
        assert plan.actions == (DELETE_JOB,)
