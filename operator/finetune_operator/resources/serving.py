"""How a version is served: the parameters of a vLLM engine, shared by FineTuneJob and ModelVersion."""

from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Fraction, ResourceRequirements, Scheduling


class ServingSpec(ApiModel):
    """Versions that agree in all but `replicas` and `progressDeadlineSeconds` share one vLLM Deployment.

    They are hot-loaded into it, except with `mergedWeights`, which makes one for a version alone. A change of anything
    else makes a new Deployment; until that one answers for the version, the old one does."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Engine pods; versions that share a Deployment get the largest number."""
    gpu_memory_utilization: Fraction = "0.9"
    """Share of GPU memory that vLLM takes; without a GPU it has no effect."""
    max_model_len: Annotated[int, Field(ge=8, le=10_000_000)] = 4096
    """Longest prompt plus answer, in tokens; of a base model that takes less, what it takes."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share one engine."""
    max_loras: Annotated[int, Field(ge=1, le=256)] = 4
    """Adapters that one engine keeps at a time."""
    max_lora_rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Largest rank that the engine accepts (vLLM knows 1, 8, 16, 32, 64, 128, 256, 320, 512)."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a new engine may take to become ready, as of a Deployment; the version then says
    ProgressDeadlineExceeded, and the engine is tried on. Versions that share one give it the longest."""
    merged_weights: bool = False
    """Serve the weights that the adapter was merged into, by an engine of the version's own, instead of the adapter
    beside others on their base model. It takes a whole model's GPU memory for one version, and answers without the
    adapter's extra work. Needs artifact.mergedDigest, hence the output MergedWeights of the FineTuneJob; maxLoras and
    maxLoraRank have no effect then, but for the day on which the adapter is served after all. Such an engine does not
    serve the base model."""
    resources: ResourceRequirements = ResourceRequirements()
    """Compute resources of the engine; a GPU is `limits: {nvidia.com/gpu: 1}`."""
    scheduling: Scheduling = Scheduling()
    """Where the engine may run."""
