"""Which files of a job's directory are told, as what."""

import pytest

from finetune_operator.contract.artifacts import Artifact, ArtifactType
from finetune_operator.core.artifact_listing import FoundFile, list_files, summed_up


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("adapter/adapter_model.safetensors", "Adapter"),
        ("model-q8_0.gguf", "Gguf"),
        ("merged/model-00001-of-00002.safetensors", "MergedWeights"),
        ("dataset/train.jsonl", "Dataset"),
        ("checkpoints/checkpoint-5/optimizer.pt", "Checkpoint"),
        ("Modelfile", "Modelfile"),
        ("train_unsloth.py", "Script"),
        ("train.log", "Log"),
        ("train.log.1", "Log"),
        ("lock", None),
        ("result.json", None),
        ("trained.json", None),
        ("artifacts.json", None),
        (".merged/model.safetensors", None),
        (".adapter.pod-1/adapter_model.safetensors", None),
        ("dataset/.train.jsonl", None),
    ],
)
def test_a_path_says_what_it_is(path: str, kind: str | None) -> None:
    listed = list_files([FoundFile(path, 7)])

    name = path.rpartition("/")[2]
    assert listed == ((Artifact(name=name, type=kind, size_bytes=7, path=path),) if kind else ())


def test_files_are_in_the_order_of_their_paths() -> None:
    paths = ["train.log", "adapter/b.json", "merged/a.json", "adapter/a.json"]

    listed = list_files(FoundFile(path, 1) for path in paths)

    assert [artifact.path for artifact in listed] == sorted(paths)


def test_a_directory_is_one_artifact_of_the_size_of_its_files() -> None:
    files = list_files([FoundFile("adapter/a.json", 3), FoundFile("adapter/b.json", 4), FoundFile("Modelfile", 5)])

    assert summed_up(files) == (
        Artifact(name="Modelfile", type=ArtifactType.MODELFILE, size_bytes=5, path="Modelfile"),
        Artifact(name="adapter", type=ArtifactType.ADAPTER, size_bytes=7, path="adapter"),
    )


def test_nothing_is_left_where_nothing_was_made() -> None:
    assert summed_up(list_files([])) == ()
