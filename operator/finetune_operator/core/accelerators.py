"""What trainings run on: the arithmetic and the memory of devices, as their makers publish them.

Peaks are dense (without sparsity), with accumulation in float32: bfloat16 on GPUs that have it, float16 on V100 and T4,
float32 on Apple's GPUs and on CPUs. Sources: NVIDIA's data sheets of each product; for GeForce the appendices of the
Ada and Blackwell architecture papers; for Apple its announcements of M1 to M1 Ultra, M2 and M2 Ultra. Of M3 and later
Apple publishes no such figure, so that they are not here.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

SIZE_IN_NAME = re.compile(r"(?<![0-9])([0-9]+)GB(?![0-9])")
WORDS = re.compile(r"[A-Za-z0-9]+")
SLICE = "mig"

# Two fused multiply-adds of eight float32 numbers a clock (AVX2), at 2.5 GHz.
CPU_CORE_TFLOPS = 0.08


class Accelerator(NamedTuple):
    """`memory_gib` is None where one name is sold with several sizes: the label of the node tells, or nobody does."""

    name: str
    peak_tflops: float
    memory_gib: int | None


# The first whose words are all in a node's label `nvidia.com/gpu.product`: the special ones stand first.
GPUS: tuple[Accelerator, ...] = (
    Accelerator("B200", 2250, 180),
    Accelerator("H200-NVL", 835, 141),
    Accelerator("H200", 989, 141),
    Accelerator("H100-NVL", 835, 94),
    Accelerator("H100-PCIe", 756, 80),
    Accelerator("H100", 989, 80),
    Accelerator("A100-40GB", 312, 40),
    Accelerator("A100-80GB", 312, 80),
    Accelerator("A100", 312, None),
    Accelerator("V100-32GB", 125, 32),
    Accelerator("V100-16GB", 125, 16),
    Accelerator("V100", 125, None),
    Accelerator("L40S", 362, 48),
    Accelerator("L40", 181, 48),
    Accelerator("L4", 121, 24),
    Accelerator("A40", 150, 48),
    Accelerator("A10G", 70, 24),
    Accelerator("A10", 125, 24),
    Accelerator("T4", 65, 16),
    Accelerator("RTX-A6000", 155, 48),
    Accelerator("RTX-5090", 210, 32),
    Accelerator("RTX-4090", 165, 24),
    Accelerator("RTX-3090", 71, 24),
)
# Their memory is the machine's, of which there are many sizes.
APPLE: tuple[Accelerator, ...] = (
    Accelerator("Apple M1", 2.6, None),
    Accelerator("Apple M1 Pro", 5.2, None),
    Accelerator("Apple M1 Max", 10.4, None),
    Accelerator("Apple M1 Ultra", 21, None),
    Accelerator("Apple M2", 3.6, None),
    Accelerator("Apple M2 Ultra", 27.2, None),
)


def gpu(label: str | None) -> Accelerator | None:
    """The GPU of a node's label `nvidia.com/gpu.product`; None for others, and for slices, which have a part of it."""
    words = _words(label or "")
    if SLICE in words:
        return None
    return next((each for each in GPUS if _words(each.name) <= words), None)


def gpu_memory_gib(label: str | None) -> int | None:
    """Memory of a type by its label; None where it is not known."""
    if label is None:
        return None
    told = SIZE_IN_NAME.search(label)
    if told:
        return int(told[1])
    found = gpu(label)
    return found.memory_gib if found else None


def named(names: Iterable[str]) -> tuple[Accelerator, ...]:
    """GPUs by the names of this table."""
    by_name = {each.name: each for each in GPUS}
    return tuple(by_name[name] for name in names)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in WORDS.findall(text))
