"""The labels of nodes that forms offer stand for the GPUs that are known, each once."""

from finetune_operator.core.accelerators import GPUS, gpu, gpu_memory_gib
from finetune_operator.web.dashboard.gpu_types import USUAL_LABELS


def test_each_known_gpu_has_its_label() -> None:
    assert {gpu(label) for label in USUAL_LABELS} == {each for each in GPUS if each.memory_gib is not None}
    assert len(set(USUAL_LABELS)) == len(USUAL_LABELS)


def test_a_label_tells_the_memory_of_its_gpu() -> None:
    found = {label: (gpu_memory_gib(label), gpu(label)) for label in USUAL_LABELS}
    assert all(known and memory == known.memory_gib for memory, known in found.values()), found
