"""What a job's directory holds, told by the paths of its files; reading the directory is the caller's part."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from finetune_operator.contract.artifacts import Artifact, ArtifactType
from finetune_operator.contract.places import (
    ADAPTER_NAME,
    CHECKPOINTS_NAME,
    DATASET_NAME,
    GGUF_F16_NAME,
    GGUF_Q8_NAME,
    LOG_NAME,
    MERGED_NAME,
    MODELFILE_NAME,
    OLDER_LOG_NAME,
    SCRIPT_NAME,
)

# First part of a path -> what it is. Whatever else is there, such as the lock, is the processes' own.
TYPES = {
    ADAPTER_NAME: ArtifactType.ADAPTER,
    CHECKPOINTS_NAME: ArtifactType.CHECKPOINT,
    DATASET_NAME: ArtifactType.DATASET,
    GGUF_F16_NAME: ArtifactType.GGUF,
    GGUF_Q8_NAME: ArtifactType.GGUF,
    LOG_NAME: ArtifactType.LOG,
    MERGED_NAME: ArtifactType.MERGED_WEIGHTS,
    MODELFILE_NAME: ArtifactType.MODELFILE,
    OLDER_LOG_NAME: ArtifactType.LOG,
    SCRIPT_NAME: ArtifactType.SCRIPT,
}


class FoundFile(NamedTuple):
    """A file's path below the job's directory, with slashes, and its size."""

    path: str
    size_bytes: int


def list_files(found: Iterable[FoundFile]) -> tuple[Artifact, ...]:
    """Each file that is an artifact or a part of one, in the order of paths."""
    listed = []
    for file in sorted(found):
        path = PurePosixPath(file.path)
        kind = TYPES.get(path.parts[0])
        # A name with a dot in front is still being written.
        if kind and not any(part.startswith(".") for part in path.parts):
            listed.append(Artifact(name=path.name, type=kind, size_bytes=file.size_bytes, path=file.path))
    return tuple(listed)


def summed_up(files: Iterable[Artifact]) -> tuple[Artifact, ...]:
    """One artifact for each directory or file at the top: as many as there are kinds, however many files they have."""
    whole: dict[str, Artifact] = {}
    for file in files:
        name = PurePosixPath(file.path).parts[0]
        size_bytes = file.size_bytes + (whole[name].size_bytes if name in whole else 0)
        whole[name] = Artifact(name=name, type=file.type, size_bytes=size_bytes, path=name)
    return tuple(whole[name] for name in sorted(whole))
