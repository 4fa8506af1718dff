"""What a FineTuneJob makes of its adapter, and the listing of what it left."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Rule, ShortText, rule

MAX_ARTIFACTS = 16


class Output(StrEnum):
    """Made besides the adapter."""

    MERGED_WEIGHTS = "MergedWeights"
    GGUF_F16 = "GgufF16"
    GGUF_Q8 = "GgufQ8"
    OLLAMA_MODELFILE = "OllamaModelfile"
    UNSLOTH_SCRIPT = "UnslothScript"


Outputs = Annotated[
    tuple[Output, ...], Field(max_length=len(Output), json_schema_extra={"x-kubernetes-list-type": "set"})
]

# Of a FineTuneJob's spec.
JOB_RULES: tuple[Rule, ...] = (
    rule(
        "self.backend != 'OpenAI' || !has(self.outputs) || size(self.outputs) == 0",
        "a model of backend OpenAI stays at its provider: remove outputs",
        field_path=".outputs",
    ),
    rule(
        "!has(self.serving) || !self.serving.mergedWeights || (has(self.outputs) && 'MergedWeights' in self.outputs)",
        "serving.mergedWeights needs the merged weights: add MergedWeights to outputs, or remove serving.mergedWeights",
        field_path=".serving.mergedWeights",
    ),
)


class ArtifactType(StrEnum):
    """What kind of thing it is."""

    ADAPTER = "Adapter"
    MERGED_WEIGHTS = "MergedWeights"
    GGUF = "Gguf"
    MODELFILE = "Modelfile"
    SCRIPT = "Script"
    DATASET = "Dataset"
    CHECKPOINT = "Checkpoint"
    LOG = "Log"


class ArtifactStatus(ApiModel):
    """A file or a directory that the training left on the artifacts volume."""

    name: ShortText
    """Its name."""
    type: ArtifactType
    """What it is."""
    size_bytes: int
    """Size of the file, or of all files of the directory, when the training ended."""
    path: Annotated[str, Field(max_length=256)]
    """Where it is, from the job's directory on."""
