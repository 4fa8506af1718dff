"""What a training leaves on the artifacts volume besides its adapter, and the listing of all of it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.base import Message


class Output(StrEnum):
    """What a job can be asked to make of its adapter; `FineTuneJob.spec.outputs` says what each is."""

    MERGED_WEIGHTS = "MergedWeights"
    GGUF_F16 = "GgufF16"
    GGUF_Q8 = "GgufQ8"
    OLLAMA_MODELFILE = "OllamaModelfile"
    UNSLOTH_SCRIPT = "UnslothScript"


class ArtifactType(StrEnum):
    """What kind of thing a file, or a directory of files, is."""

    ADAPTER = "Adapter"
    MERGED_WEIGHTS = "MergedWeights"
    GGUF = "Gguf"
    MODELFILE = "Modelfile"
    SCRIPT = "Script"
    DATASET = "Dataset"
    CHECKPOINT = "Checkpoint"
    LOG = "Log"


class Artifact(Message):
    """One file, or one directory with the size of all its files; `path` is relative to the job's directory."""

    name: str
    type: ArtifactType
    size_bytes: int
    path: str


class OutputError(Message):
    """An output that could not be made: the fact, and what to change. The adapter is as good as ever."""

    output: Output
    message: str


class WeightsManifest(Message):
    """`manifest.json` among merged weights, written before their directory gets its final name.

    Its own digest is of all that it says (`core/merged_weights.py`)."""

    base_model_name: str
    adapter_digest: str
    files: tuple[AdapterFile, ...]
    digest: str


class MergedWeights(Message):
    """`MERGED_FILE`: what a server of merged weights is to find, and by which name it answers."""

    name: str
    path: str
    digest: str
    base_model_name: str
    adapter_digest: str


class WeightsRefused(Message):
    """Termination message of a server that does not start with such weights: the fact, and what to change."""

    kind: Literal["WeightsRefused"] = "WeightsRefused"
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,99}$")]
    message: str


class ArtifactListing(RootModel[tuple[Artifact, ...]]):
    """`artifacts.json` in a job's directory: each file that the job left, in the order of their paths."""

    model_config = ConfigDict(frozen=True)
