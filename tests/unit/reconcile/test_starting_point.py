"""spec.initFrom: what is resolved before a pod is made, and what is refused without one."""

from typing import Any

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import StartingAdapter
from finetune_operator.core.workloads import job_facts
from finetune_operator.manifests.training import training_job
from finetune_operator.reconcile.finetunejob import LOOK_AGAIN_SECONDS, reconcile
from finetune_operator.reconcile.plan import Create
from finetune_operator.reconcile.training_observed import Observed
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import BASE_MODEL, COMMIT, CONFIG, DIGEST, NOON, after, job_body, make_job, make_version, merged

URI = "volume://artifacts/finetune/plato/earlier-uid/adapter"
ARTIFACT = {"artifact": {"uri": URI, "digest": DIGEST}}
START = StartingAdapter(model_version="plato-v1", path="/artifacts/finetune/plato/earlier-uid/adapter", digest=DIGEST)


def going_on(**changes: Any) -> FineTuneJob:
    return make_job({"initFrom": {"modelVersion": "plato-v1"}} | changes)


def status_of(job: FineTuneJob, *versions: dict[str, Any]) -> FineTuneJobStatus:
    seen = Observed(versions=tuple(make_version(1, merged(ARTIFACT, spec)) for spec in versions))
    plan = reconcile(job, seen, NOON, CONFIG)
    assert plan.actions == ()
    return FineTuneJobStatus.model_validate(plan.status)


def test_the_trainer_is_told_where_the_adapter_is_and_its_digest() -> None:
    job = going_on()
    plan = reconcile(job, Observed(versions=(make_version(1, ARTIFACT), make_version(2))), NOON, CONFIG)
    assert plan.actions == (Create("jobs", training_job(job, CONFIG, START), job.metadata.uid),)


def test_a_version_whose_hyperparameters_are_not_known_is_left_to_the_trainer() -> None:
    version = make_version(1, merged(ARTIFACT, {"lineage": {"hyperparameters": {"epochs": "3"}}}))
    assert reconcile(going_on(lora={"r": 64}), Observed(versions=(version,)), NOON, CONFIG).actions


FROZEN = {"modelVersion": "plato-v1", "path": START.path, "digest": DIGEST}
VERSION = make_version(1, ARTIFACT)


def started(job: FineTuneJob) -> FineTuneJob:
    return after(job, reconcile(job, Observed(versions=(VERSION,)), NOON, CONFIG))


class TestStartedAgain:
    """Under Kueue a suspended training loses its Job, and so does one whose end was not seen."""

    @pytest.mark.parametrize(
        "versions",
        [
            (),
            (make_version(1, ARTIFACT, deleting=True),),
            (make_version(1, merged(ARTIFACT, {"artifact": {"uri": URI + "-2", "digest": "sha256:" + "b" * 64}})),),
        ],
        ids=["deleted", "being deleted", "made again of other files"],
    )
    def test_it_goes_on_from_what_it_began_with(self, versions: tuple[ModelVersion, ...]) -> None:
        job = started(going_on())
        assert job.status.to_dict()["initFrom"] == FROZEN
        queued = make_job(job.spec.to_dict() | {"suspend": True}, status=job.status.to_dict())
        suspended = after(queued, reconcile(queued, Observed(versions=versions), NOON, CONFIG))
        resumed = make_job(job.spec.to_dict(), status=suspended.status.to_dict())
        plan = reconcile(resumed, Observed(versions=versions), NOON, CONFIG)
        assert plan.actions == (Create("jobs", training_job(job, CONFIG, START), job.metadata.uid),)
        assert after(resumed, plan).status.to_dict()["initFrom"] == FROZEN

    def test_what_was_not_written_when_the_job_was_made_is_written_as_soon_as_it_is_seen(self) -> None:
        job = going_on()
        seen = Observed(job_facts(job_body(job.metadata.uid)), versions=(VERSION,))
        assert after(job, reconcile(job, seen, NOON, CONFIG)).status.to_dict()["initFrom"] == FROZEN

    @pytest.mark.parametrize(
        ("job", "versions"),
        [(going_on(suspend=True), (VERSION,)), (going_on(), ()), (make_job(), (VERSION,))],
        ids=["suspended from the beginning", "not there yet", "from the base model"],
    )
    def test_what_has_not_begun_has_no_beginning(self, job: FineTuneJob, versions: tuple[ModelVersion, ...]) -> None:
        assert after(job, reconcile(job, Observed(versions=versions), NOON, CONFIG)).status.init_from is None


@pytest.mark.parametrize("versions", [(), (make_version(1, ARTIFACT, deleting=True),)], ids=["none", "going"])
def test_a_version_that_is_not_there_is_waited_for_whichever_was_applied_first(
    versions: tuple[ModelVersion, ...],
) -> None:
    job = going_on()
    plan = reconcile(job, Observed(versions=versions), NOON, CONFIG)
    assert (plan.actions, plan.requeue_after_seconds) == ((), LOOK_AGAIN_SECONDS)

    waiting = after(job, plan)
    assert waiting.status.phase is Phase.PENDING
    assert "waits for ModelVersion plato-v1" in str(waiting.status.message)
    assert "create it" in str(waiting.status.message)

    plan = reconcile(waiting, Observed(versions=(VERSION,)), NOON, CONFIG)
    assert [action.plural for action in plan.actions if isinstance(action, Create)] == ["jobs"]


def hub(revision: str) -> dict[str, Any]:
    place = {"id": "Qwen/Qwen3-0.6B", "revision": revision}
    return {"baseModel": {"name": "qwen3", "source": {"volume": None, "hub": place}}}


REFUSED: dict[str, tuple[FineTuneJob, list[dict[str, Any]], str, str]] = {
    "another base model": (
        going_on(),
        [{"baseModel": merged(BASE_MODEL, {"name": "llama"})}],
        "base model llama (volume models/tiny-llama), this job has tiny-llama",
        "base model of that version",
    ),
    "another directory of base models": (
        going_on(),
        [{"baseModel": merged(BASE_MODEL, {"source": {"volume": {"path": "tiny-llama-2"}}})}],
        "volume models/tiny-llama-2",
        "base model of that version",
    ),
    "another commit of a hub's model": (
        going_on(**hub("main")),
        [hub(COMMIT)],
        f"revision {COMMIT}",
        "base model of that version",
    ),
    "another rank": (
        going_on(lora={"r": 32}),
        [{"lineage": {"hyperparameters": {"loraR": "8"}}}],
        "its r is 8, this job's is 32",
        "spec.lora.r: 8",
    ),
    "another alpha": (
        going_on(),
        [{"lineage": {"hyperparameters": {"loraR": "16", "loraAlpha": "64"}}}],
        "its alpha is 64, this job's is 32",
        "spec.lora.alpha: 64",
    ),
    "an adapter on another volume": (
        going_on(),
        [{"artifact": {"uri": "volume://elsewhere/plato/adapter", "digest": DIGEST}}],
        "volume://elsewhere/plato/adapter",
        "on the volume artifacts",
    ),
}


@pytest.mark.parametrize(("job", "versions", "fact", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_be_gone_on_from_is_refused_without_a_pod(
    job: FineTuneJob, versions: list[dict[str, Any]], fact: str, remedy: str
) -> None:
    status = status_of(job, *versions)
    assert status.phase is Phase.FAILED
    (stalled,) = (each for each in status.conditions if each.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", FailureReason.INVALID_CONFIG)
    assert fact in stalled.message
    assert remedy in stalled.message
