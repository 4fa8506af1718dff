"""A dataset through served versions: one Job, one result, whoever dies meanwhile."""

from finetune_operator.contract.batch_inference import BatchInferenceConfig
from finetune_operator.contract.failures import EXIT_CODES, TRY_AGAIN_EXIT_CODE, Failure, FailureReason
from finetune_operator.contract.places import BATCH_CONFIG_ANNOTATION
from finetune_operator.manifests.common import BATCH_NAME_LABEL
from tests.builders import make_batch_report, make_result_file
from tests.cluster.samples import Manifest, ab_test, batch_inference
from tests.cluster.world import World
from tests.waiting import eventually, throughout

REPORT = make_batch_report(make_result_file(), make_result_file("tiny", failed=1, first_error="too long"))
AWAY = Failure(reason=FailureReason.ENGINE_UNAVAILABLE, message="no answer for 600 s", remedy="see its log")
EMPTY = Failure(reason=FailureReason.DATASET_EMPTY, message="no row asks anything", remedy="name another dataset")


async def batch_jobs(world: World) -> list[str]:
    return await world.names("jobs", f"{BATCH_NAME_LABEL}=answers")


def told(pod: Manifest) -> BatchInferenceConfig:
    return BatchInferenceConfig.model_validate_json(pod["metadata"]["annotations"][BATCH_CONFIG_ANNOTATION])


async def test_a_dataset_runs_through_a_version_and_its_base_model(world: World) -> None:
    await world.serve("plato-v1")
    made = await world.create(batch_inference(compareWith={"base": True}, ttlSecondsAfterFinished=3600))

    pod = await world.kubelet.batch("answers")
    engine = await world.engine_of("plato-v1")
    assert [(model.served_name, model.engine_url) for model in told(pod).models] == [
        ("plato-v1", f"http://{engine}.{world.namespace}.svc:8000"),
        ("tiny", f"http://{engine}.{world.namespace}.svc:8000"),
    ]
    await world.kubelet.ask(pod)
    await world.reaches("batchinferences", "answers", phase="Running")
    world.api.report(made, 6, 24, failed_rows=1)
    await world.reaches("batchinferences", "answers", progress={"done": 6, "total": 24, "failed": 1, "summary": "25%"})

    await world.kubelet.end_batch(pod, REPORT)

    done = await world.reaches("batchinferences", "answers", phase="Succeeded")
    status = done["status"]
    assert status["directory"] == status["results"]["uri"]
    assert status["results"]["uri"] == f"volume://artifacts/{world.namespace}/batches/{made['metadata']['uid']}"
    assert [(model["servedName"], model["failed"]) for model in status["results"]["models"]] == [
        ("plato-v1", 0),
        ("tiny", 1),
    ]
    assert status["tokens"] == {"prompt": 240, "completion": 120}
    await world.says("batchinferences", "answers", "Ready", status="True", reason="Answered")
    (name,) = await batch_jobs(world)

    async def has_its_time_to_live() -> bool:
        return (await world.get("jobs", name))["spec"].get("ttlSecondsAfterFinished") == 3600

    await eventually(has_its_time_to_live)
    await world.told("Answered", made["metadata"]["uid"])


async def test_it_waits_for_a_version_that_answers(world: World) -> None:
    await world.create(batch_inference())
    await world.says("batchinferences", "answers", "Reconciling", reason="VersionNotFound", message="create it")
    assert await batch_jobs(world) == []

    await world.serve("plato-v1")

    await world.kubelet.batch("answers")


async def test_its_pairs_go_to_the_abtest_that_it_names(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")
    asked = {"modelVersion": "plato-v2", "compareWith": {"modelVersion": "plato-v1"}, "abTest": {"name": "duel"}}
    await world.create(batch_inference(**asked))
    await world.says("batchinferences", "answers", "Reconciling", reason="ABTestNotFound", message="duel")

    test = await world.create(ab_test())

    pod = await world.kubelet.batch("answers")
    voting = told(pod).voting
    assert voting is not None
    assert voting.url == f"{world.api.url}/internal/v1/abtests/{test['metadata']['uid']}/pairs"
    await world.kubelet.end_batch(pod, make_batch_report().model_copy(update={"pairs": 12}))
    await world.reaches("batchinferences", "answers", phase="Succeeded", results={"pairs": 12})


async def test_an_engine_that_is_away_is_tried_again(world: World) -> None:
    await world.serve("plato-v1")
    await world.create(batch_inference())
    first = await world.kubelet.batch("answers")
    await world.kubelet.end_batch(first, AWAY, TRY_AGAIN_EXIT_CODE)

    await world.says("batchinferences", "answers", "Reconciling", reason="EngineUnavailable", message="see its log")

    second = await world.kubelet.batch("answers", 60, other_than=first["metadata"]["uid"])
    await world.kubelet.end_batch(second, make_batch_report())
    await world.reaches("batchinferences", "answers", phase="Succeeded")


async def test_a_dataset_that_asks_nothing_fails_it_for_good(world: World) -> None:
    await world.serve("plato-v1")
    await world.create(batch_inference())
    pod = await world.kubelet.batch("answers")
    await world.kubelet.end_batch(pod, EMPTY, EXIT_CODES[EMPTY.reason])

    await world.reaches("batchinferences", "answers", phase="Failed")
    said = await world.says("batchinferences", "answers", "Stalled", status="True", reason="DatasetEmpty")
    assert said["message"] == "no row asks anything: name another dataset"


async def test_it_is_suspended_and_goes_on(world: World) -> None:
    await world.serve("plato-v1")
    await world.create(batch_inference())
    first = await world.kubelet.batch("answers")
    await world.kubelet.ask(first)
    await world.reaches("batchinferences", "answers", phase="Running")

    await world.edit("batchinferences", "answers", suspend=True)
    await world.reaches("batchinferences", "answers", phase="Suspended")
    await world.gone("pods", first["metadata"]["name"])

    await world.edit("batchinferences", "answers", suspend=False)
    second = await world.kubelet.batch("answers", other_than=first["metadata"]["uid"])
    await world.kubelet.end_batch(second, make_batch_report())
    await world.reaches("batchinferences", "answers", phase="Succeeded")


async def test_an_operator_that_dies_at_any_moment_makes_one_job_and_one_result(world: World) -> None:
    await world.serve("plato-v1")
    await world.create(batch_inference())
    pod = await world.kubelet.batch("answers")
    await world.operator.kill()
    await world.kubelet.end_batch(pod, make_batch_report())
    jobs = await batch_jobs(world)

    await world.operator.start()
    await world.reaches("batchinferences", "answers", phase="Succeeded")
    await world.settled()
    mark = world.audit.end()
    await world.operator.kill()
    await world.operator.start()

    async def nothing_changes() -> None:
        assert await batch_jobs(world) == jobs
        assert world.audit.writes(world.namespace, mark) == []

    await throughout(nothing_changes, 3.0)


async def test_a_deleted_batch_takes_its_job_along(world: World) -> None:
    await world.serve("plato-v1")
    await world.create(batch_inference())
    pod = await world.kubelet.batch("answers")
    (name,) = await batch_jobs(world)

    await world.delete("batchinferences", "answers")

    await world.gone("jobs", name)
    await world.gone("pods", pod["metadata"]["name"])
