"""Types of GPUs that a form offers: as labels of nodes, by which pods are placed and prices are looked up. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from finetune_operator.core.accelerators import gpu, gpu_memory_gib
from finetune_operator.core.cost import GPU, PriceBook

# As NVIDIA's GPU feature discovery calls them: the names that the driver tells, with hyphens for spaces.
USUAL_LABELS = (
    "NVIDIA-B200",
    "NVIDIA-H200",
    "NVIDIA-H200-NVL",
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-H100-NVL",
    "NVIDIA-H100-PCIe",
    "NVIDIA-A100-SXM4-80GB",
    "NVIDIA-A100-SXM4-40GB",
    "NVIDIA-L40S",
    "NVIDIA-L40",
    "NVIDIA-L4",
    "NVIDIA-A40",
    "NVIDIA-A10",
    "NVIDIA-A10G",
    "Tesla-V100-SXM2-32GB",
    "Tesla-V100-SXM2-16GB",
    "Tesla-T4",
    "NVIDIA-RTX-A6000",
    "NVIDIA-GeForce-RTX-5090",
    "NVIDIA-GeForce-RTX-4090",
    "NVIDIA-GeForce-RTX-3090",
)


class GpuType(NamedTuple):
    """The label's value, and what is known of such a GPU."""

    label: str
    known: str


def offered(prices: PriceBook) -> tuple[GpuType, ...]:
    """Those with a price of their own first: an installation has these."""
    labels = dict.fromkeys((*prices.gpu_types, *USUAL_LABELS))
    return tuple(GpuType(label, ", ".join(_known(label, prices))) for label in labels)


def _known(label: str, prices: PriceBook) -> Iterable[str]:
    if gpu(label) is None:
        yield "speed not known"
    if memory_gib := gpu_memory_gib(label):
        yield f"{memory_gib} GiB"
    price = prices.gpu_types.get(label, prices.per_hour.get(GPU))
    yield f"{price:f} {prices.currency} per hour" if price is not None else "no price"
