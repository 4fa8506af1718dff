"""The ModelVersion that a training's result becomes."""

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.conditions import find, is_true
from finetune_operator.reconcile.finetunejob import Observed
from finetune_operator.reconcile.plan import Create, Delete, Plan
from finetune_operator.resources.finetunejob import Phase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import DIGEST, NOON, make_job, make_version, terminated, training_pod
from tests.unit.reconcile.trainings import (
    COMPLETE,
    JOB,
    PREPARED,
    STATUS_OF_TRAINING,
    SUCCEEDED_POD,
    TRAINING_POD,
    UID,
    assert_failed,
    decide,
    seen,
    status_of,
)


class TestPublish:
    @pytest.mark.parametrize(("backend", "image"), [("Unsloth", "trainer:1"), ("Axolotl", "trainer-axolotl:1")])
    def test_a_version_names_the_image_that_trained_it(self, backend: str, image: str) -> None:
        (create,) = decide(make_job({"backend": backend}), seen(SUCCEEDED_POD, conditions=(COMPLETE,))).actions
        assert isinstance(create, Create)
        assert create.body["spec"]["lineage"]["trainerImage"] == f"registry.example/{image}"

    def test_a_result_becomes_a_model_version(self) -> None:
        plan = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,)))
        (create,) = plan.actions
        assert isinstance(create, Create)
        assert (create.plural, create.body["metadata"]["name"], create.owner_uid) == ("modelversions", "plato-v1", UID)
        assert create.body["spec"]["artifact"] == {
            "uri": f"volume://artifacts/finetune/plato/{UID}/adapter",
            "digest": DIGEST,
        }
        assert create.body["spec"]["lineage"]["jobUid"] == UID
        status = status_of(plan)
        assert (status.phase, status.model_version, status.completion_time) == (Phase.SUCCEEDED, "plato-v1", NOON)
        assert status.progress is not None
        assert (status.progress.percent, status.progress.eta) == (100, "0s")
        assert status.result is not None
        assert (status.result.test_loss, status.result.base_test_loss) == ("0.3", "2.5")
        for type_ in ("DatasetReady", "Trained", "Published", "Succeeded", "Ready"):
            assert is_true(status.conditions, type_), type_
        assert find(status.conditions, "Reconciling") is None
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Published")]

    def test_the_next_number_counts_the_own_family_only(self) -> None:
        others = (
            make_version(1),
            make_version(7),
            make_version(9, {"model": "kant"}),
        )
        (create,) = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,), versions=others)).actions
        assert isinstance(create, Create)
        assert create.body["metadata"]["name"] == "plato-v8"

    def test_the_loser_of_a_race_for_a_number_takes_the_next(self) -> None:
        """The API server refuses the second plato-v1; the executor remembers whose it is, and the plan is made anew."""
        first = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,))).actions[0]
        assert isinstance(first, Create)
        rival = make_job(name="plato-logic")
        made = ModelVersion.parse(first.body | {"metadata": first.body["metadata"] | {"uid": "uid-of-v1"}})
        world = seen(SUCCEEDED_POD, conditions=(COMPLETE,), owner=rival.metadata.uid, versions=(made,))
        (second,) = decide(rival, world).actions
        assert isinstance(second, Create)
        assert second.body["metadata"]["name"] == "plato-v2"

    @pytest.mark.parametrize(
        "world",
        [
            seen(SUCCEEDED_POD, conditions=(COMPLETE,), versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
            seen(conditions=(COMPLETE,), versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
            Observed(versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
        ],
        ids=["pods there", "pods gone", "job gone"],
    )
    def test_a_version_made_before_a_crash_is_adopted(self, world: Observed) -> None:
        plan = decide(JOB, world)
        assert plan.actions == ()
        assert (status_of(plan).phase, status_of(plan).model_version) == (Phase.SUCCEEDED, "plato-v4")

    def test_a_job_whose_pods_are_gone_asks_again(self) -> None:
        plan = decide(JOB, seen(conditions=(COMPLETE,)))
        assert plan == Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),))
        assert isinstance(decide(JOB, Observed()).actions[0], Create)

    def test_a_pod_whose_end_is_not_yet_seen_is_waited_for(self) -> None:
        """Job and pod come by different watches, in any order."""
        assert decide(make_job(status=STATUS_OF_TRAINING), seen(TRAINING_POD, conditions=(COMPLETE,))) == Plan()

    def test_a_trainer_that_left_no_result_is_not_asked_for_ever(self) -> None:
        silent = training_pod(phase="Succeeded", prepare=PREPARED, trainer=terminated(0, "bye"))
        plan = decide(JOB, seen(silent, conditions=(COMPLETE,)))
        assert plan.actions == ()
        assert_failed(plan, FailureReason.TRAINER_FAILED, "use a trainer image of the operator's own release")
