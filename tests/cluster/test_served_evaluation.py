"""A served version measured by a Job of its own: one Job, one result, whoever dies meanwhile."""

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import EVALUATION_CONFIG_ANNOTATION
from finetune_operator.contract.served_evaluation import EvaluationSource, ServedEvaluationConfig
from finetune_operator.manifests.common import VERSION_NAME_LABEL
from tests.builders import EVALUATED
from tests.cluster.samples import RESULT, Manifest, model_version
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout

REQUIRED = {"metrics": ["RougeL"], "require": ["RougeL >= 0.4"]}
REFUSAL = Failure(reason=FailureReason.DATASET_EMPTY, message="no held-out rows", remedy="name other questions")
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


async def evaluator_jobs(world: World, version: str = "plato-v1") -> list[str]:
    return await world.names("jobs", f"{VERSION_NAME_LABEL}={version}")


async def recorded(world: World, count: int) -> list[str]:
    """Ids in the status, once the api has acknowledged them."""

    async def known() -> list[str]:
        status = (await world.get("modelversions", "plato-v1")).get("status", {})
        ids = list(status.get("recordedEvaluations", []))
        assert len(ids) == count
        return ids

    return await eventually(known)


def told(pod: Manifest) -> ServedEvaluationConfig:
    return ServedEvaluationConfig.model_validate_json(pod["metadata"]["annotations"][EVALUATION_CONFIG_ANNOTATION])


async def test_a_version_is_promoted_once_it_was_measured_and_is_good_enough(world: World) -> None:
    await world.serve("plato-v1", promotion="Always", evaluation=REQUIRED, serving=GPU)

    pod = await world.kubelet.evaluator("plato-v1")
    config = told(pod)
    engine = await world.engine_of("plato-v1")
    assert config.engine_url == f"http://{engine}.{world.namespace}.svc:8000"
    assert (config.base_model_name, config.served_name) == ("tiny", "plato-v1")
    assert config.rows_path == "/artifacts/default/plato/1/dataset/test.jsonl"
    await world.kubelet.evaluate(pod)
    await world.says("modelversions", "plato-v1", "Evaluated", status="False", reason="Evaluating")
    await world.says("modelversions", "plato-v1", "EvaluationPassed", status="False", reason="NotMeasured")
    assert "promotedAt" not in (await world.get("modelversions", "plato-v1"))["status"]

    await world.kubelet.end_evaluation(pod, EVALUATED)

    version = await world.reaches("modelversions", "plato-v1", state="Deployed")
    measured = version["status"]["evaluation"]
    assert measured["metrics"] == [{"name": "RougeL", "base": "0.12", "fineTuned": "0.41"}]
    assert measured["p95LatencySeconds"] == {"base": "2", "fineTuned": "2.1"}
    # A GPU costs one unit a second.
    assert measured["costPerAnswer"] == {"currency": "USD", "base": "0.25", "fineTuned": "0.5"}
    assert condition(version, "EvaluationPassed")["message"] == "RougeL 0.41 >= 0.4"
    assert version["status"]["history"][-1]["why"] == "spec.promotion is Always"
    (identity,) = await recorded(world, 1)
    row = world.api.evaluations[identity]
    assert (row.source, row.model_version, row.currency) == (EvaluationSource.SERVED, "plato-v1", "USD")
    assert {value.name: value.fine_tuned for value in row.values}["RougeL"] == 0.41
    assert len(await evaluator_jobs(world)) == 1


async def test_what_a_training_measured_is_recorded_though_the_api_was_away(world: World) -> None:
    await world.api.stop()
    _, pod = await world.train(serving={}, evaluation={"metrics": ["RougeL"]})
    await world.kubelet.succeed(pod, RESULT.model_copy(update={"evaluation": EVALUATED}))
    await world.reaches("finetunejobs", "plato-1", phase="Succeeded")
    await world.start_engine("plato-v1")
    await world.says("modelversions", "plato-v1", "Loaded", status="True")
    assert "recordedEvaluations" not in (await world.get("modelversions", "plato-v1"))["status"]

    await world.api.start()
    await world.operator.kill()
    await world.operator.start()

    (identity,) = await recorded(world, 1)
    version = await world.get("modelversions", "plato-v1")
    assert identity == f"{version['metadata']['uid']}-training"
    row = world.api.evaluations[identity]
    assert row.source is EvaluationSource.TRAINING
    assert {"RougeL", "evalLoss"} <= {value.name for value in row.values}


async def test_an_evaluation_that_fails_is_told_and_tried_again_when_its_job_is_deleted(world: World) -> None:
    await world.serve("plato-v1", promotion="Always", evaluation=REQUIRED)
    pod = await world.kubelet.evaluator("plato-v1")
    await world.kubelet.end_evaluation(pod, REFUSAL, EXIT_CODES[REFUSAL.reason])

    said = await world.says("modelversions", "plato-v1", "Evaluated", status="False", reason="DatasetEmpty")

    (name,) = await evaluator_jobs(world)
    expected = "the evaluation failed: no held-out rows: name other questions; kubectl delete job"
    assert said["message"] == f"{expected} {name} has it tried again"
    version = await world.reaches("modelversions", "plato-v1", state="Ready")
    assert "held back from promotion: RougeL was not measured" in version["status"]["message"]
    assert [event["type"] for event in await world.told("DatasetEmpty")] == ["Warning"]

    job = await world.get("jobs", name)
    await world.client.delete("jobs", world.namespace, name, job["metadata"]["uid"])
    another = await world.kubelet.evaluator("plato-v1")
    assert another["metadata"]["uid"] != pod["metadata"]["uid"]
    await world.kubelet.end_evaluation(another, EVALUATED)
    await world.reaches("modelversions", "plato-v1", state="Deployed")


async def test_another_evaluation_takes_the_place_of_a_running_one(world: World) -> None:
    await world.serve("plato-v1", evaluation=REQUIRED)
    first = await world.kubelet.evaluator("plato-v1")
    await world.kubelet.evaluate(first)
    (before,) = await evaluator_jobs(world)

    await world.edit("modelversions", "plato-v1", evaluation={"maxExamples": 7})

    await world.gone("jobs", before)
    await world.gone("pods", first["metadata"]["name"])
    second = await world.kubelet.evaluator("plato-v1")
    assert told(second).max_examples == 7
    assert len(await evaluator_jobs(world)) == 1


async def test_an_operator_that_dies_at_any_moment_makes_one_job_and_one_result(world: World) -> None:
    await world.serve("plato-v1", evaluation=REQUIRED)
    pod = await world.kubelet.evaluator("plato-v1")
    await world.operator.kill()
    await world.kubelet.end_evaluation(pod, EVALUATED)
    job = await eventually(lambda: evaluator_jobs(world))

    await world.operator.start()
    await world.says("modelversions", "plato-v1", "Evaluated", status="True", reason="Measured")
    await recorded(world, 1)
    await world.settled()
    mark = world.audit.end()
    await world.operator.kill()
    await world.operator.start()

    async def nothing_changes() -> None:
        assert await evaluator_jobs(world) == job
        assert world.audit.writes(world.namespace, mark) == []

    await throughout(nothing_changes, 3.0)
    assert len(world.api.evaluations) == 1


async def test_a_deleted_version_takes_its_evaluation_along(world: World) -> None:
    await world.serve("plato-v1", evaluation=REQUIRED)
    pod = await world.kubelet.evaluator("plato-v1")
    (name,) = await evaluator_jobs(world)

    await world.delete("modelversions", "plato-v1")

    await world.gone("jobs", name)
    await world.gone("pods", pod["metadata"]["name"])


async def test_a_version_that_is_not_loaded_waits(world: World) -> None:
    await world.create(model_version("plato-v1", evaluation=REQUIRED))
    await world.says("modelversions", "plato-v1", "Evaluated", status="False", reason="NotLoaded")
    assert await evaluator_jobs(world) == []
    await world.start_engine("plato-v1")
    await world.kubelet.evaluator("plato-v1")
