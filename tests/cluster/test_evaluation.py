"""A FineTuneJob whose evaluation has to be passed: what it publishes answers, but only the user makes it live."""

from finetune_operator.contract.evaluation import EvaluationReport, Metric, Score, Speed
from tests.cluster.samples import RESULT
from tests.cluster.world import World, condition
from tests.waiting import throughout

REPORT = EvaluationReport(
    examples=12,
    scores=(Score(metric=Metric.ROUGE_L, base=0.12, fine_tuned=0.21),),
    base_speed=Speed(mean_latency_seconds=1.5, seconds_per_answer=0.25, tokens_per_second=100.0),
    fine_tuned_speed=Speed(mean_latency_seconds=1.6, seconds_per_answer=0.25, tokens_per_second=90.0),
)
VALUES = [{"name": "RougeL", "base": "0.12", "fineTuned": "0.21"}]


async def train_and_serve(world: World, requirement: str) -> None:
    _, pod = await world.train(
        promotion="Always",
        serving={"replicas": 1},
        evaluation={"metrics": ["RougeL"], "require": [requirement]},
    )
    await world.kubelet.succeed(pod, RESULT.model_copy(update={"evaluation": REPORT}))
    await world.reaches("finetunejobs", "plato-1", phase="Succeeded")
    await world.start_engine("plato-v1")
    await world.says("modelversions", "plato-v1", "Loaded", status="True")


async def test_a_version_that_misses_a_requirement_is_served_but_not_promoted_until_it_is_pinned(world: World) -> None:
    await train_and_serve(world, "RougeL >= 0.3")

    job = await world.get("finetunejobs", "plato-1")
    assert "published ModelVersion plato-v1, held back from promotion: RougeL 0.21 < 0.3" in job["status"]["message"]
    assert job["status"]["evaluation"]["metrics"] == VALUES
    said = await world.says("modelversions", "plato-v1", "EvaluationPassed", status="False", reason="RequirementMissed")
    assert said["message"].startswith("RougeL 0.21 < 0.3: ")
    version = await world.reaches("modelversions", "plato-v1", state="Ready")
    assert version["spec"]["lineage"]["evaluation"]["metrics"] == VALUES
    assert version["status"]["metrics"] == {"testLoss": "0.4", "baseTestLoss": "1.2", "scores": VALUES}
    assert [event["type"] for event in await world.told("RequirementMissed")] == ["Warning"]

    async def is_held_back() -> None:
        assert "promotedAt" not in (await world.get("modelversions", "plato-v1"))["status"]

    await throughout(is_held_back, 2.0)
    await world.edit("modelversions", "plato-v1", state="Deployed")

    deployed = await world.reaches("modelversions", "plato-v1", state="Deployed")
    assert deployed["status"]["history"][-1]["why"] == "spec.state is Deployed"
    assert condition(deployed, "EvaluationPassed")["status"] == "False"


async def test_lowering_the_requirement_promotes(world: World) -> None:
    await train_and_serve(world, "RougeL >= 0.3")
    await world.says("modelversions", "plato-v1", "EvaluationPassed", status="False")

    await world.edit("modelversions", "plato-v1", evaluation={"require": ["RougeL > base", "evalLoss < base"]})

    deployed = await world.reaches("modelversions", "plato-v1", state="Deployed")
    assert deployed["status"]["history"][-1]["why"] == "spec.promotion is Always"
    passed = condition(deployed, "EvaluationPassed")
    assert (passed["status"], passed["message"]) == ("True", "RougeL 0.21 > 0.12 (base), evalLoss 0.4 < 1.2 (base)")
