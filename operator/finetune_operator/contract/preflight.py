"""What was estimated of a training before a GPU was taken for it."""

from finetune_operator.contract.base import Message


class Preflight(Message):
    """Size of the base model, and the GPU memory that its training needs; what the GPU has only where it is known."""

    parameters_billion: float
    memory_gib: float
    gpu_memory_gib: int | None = None
