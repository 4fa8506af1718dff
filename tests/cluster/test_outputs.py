"""A FineTuneJob that asked for outputs, of which one could not be made: published, with a warning and a listing."""

import json

from finetune_operator.contract.artifacts import Artifact, ArtifactType, Output, OutputError
from tests.cluster.samples import RESULT
from tests.cluster.world import World, condition

LEFT = tuple(Artifact(name=kind, type=kind, size_bytes=5_000_000_000, path=kind) for kind in ArtifactType)
ERROR = OutputError(output=Output.MERGED_WEIGHTS, message="merging needs 18.6 GiB of memory and 6.0 are free: raise it")


async def test_what_a_training_left_is_told_and_what_it_could_not_make(world: World) -> None:
    _, pod = await world.train(outputs=["MergedWeights", "OllamaModelfile"])
    annotation = pod["metadata"]["annotations"]["finetune.dev/training-config"]
    assert json.loads(annotation)["outputs"] == ["MergedWeights", "OllamaModelfile"]
    result = RESULT.model_copy(update={"artifacts": LEFT, "output_errors": (ERROR,)})

    await world.kubelet.succeed(pod, result)

    job = await world.reaches("finetunejobs", "plato-1", phase="Succeeded")
    assert job["status"]["artifacts"] == [each.model_dump(mode="json", by_alias=True) for each in LEFT]
    exported = condition(job, "Exported")
    assert (exported["status"], exported["reason"]) == ("False", "OutputFailed")
    assert exported["message"] == f"MergedWeights: {ERROR.message}"
    assert (await world.get("modelversions", "plato-v1"))["spec"]["version"] == 1
    told = await world.told("OutputFailed")
    assert [(event["type"], event["message"]) for event in told] == [("Warning", exported["message"])]
