"""How large a version's model is: what its engine loads for it, beside a base model where it is an adapter."""

from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.resources.modelversion import ModelVersion


def served_bytes(version: ModelVersion) -> int | None:
    """Of what is served, else of what is to be; None where it is not known."""
    spec, engine = version.spec, version.status.engine
    if engine is not None:
        is_merged = is_merged_engine(engine)
    else:
        is_merged = spec.serving is not None and spec.serving.merged_weights
    return spec.artifact.merged_size_bytes if is_merged else spec.artifact.size_bytes
