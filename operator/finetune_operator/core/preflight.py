"""What is known about a training before its trainer starts: memory, work, and what speaks against it.

An estimate of memory adds up frozen weights, the adapter with gradients and optimizer, activations, logits and CUDA's
context. Refused is only what is certain: weights and adapter alone do not fit, or no row has an answer that is learned
from. For other models than dense decoders of Llama's shape memory and work are unknown. Sources, by arXiv number:

- 4.127 bits a weight in NF4 with double quantization: QLoRA, 2305.14314, section 3.
- Under gradient checkpointing one input a layer, and 34 s b h bytes within the layer at hand (fused attention keeps no
  attention matrix): Korthikanti et al., 2205.05198, sections 4.1 and 5.
- 16 bytes a trained weight with Adam in mixed precision: ZeRO, 1910.02054, section 3.1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.preflight import Preflight, RemoteWork, TokenLengths
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.accelerators import gpu_memory_gib
from finetune_operator.core.model_shape import ModelShape, adapter_parameters, shape_to_tell
from finetune_operator.core.remote_training import estimated_steps, estimated_tokens
from finetune_operator.core.training_time import work_of

GIB = 2**30
WEIGHT_BYTES: Mapping[str, float] = {"none": 2.0, "8bit": 1.0, "4bit": 4.127 / 8}
"""Of the linear layers; embeddings, norms and the head stay at two bytes."""
UNQUANTIZED_BYTES = 2
TRAINED_BYTES = 16
LEAST_TRAINED_BYTES = 4
"""An adapter and its gradients in bfloat16, with an optimizer that keeps next to nothing."""
LAYER_ACTIVATION_BYTES = 34
LOGIT_BYTES = {"HuggingFace": 10, "Unsloth": 2}
"""Of a logit: bfloat16, its float32 copy and gradient; Unsloth computes the loss in chunks and keeps the first only."""
CUDA_CONTEXT_GIB = 1.0
NOTICEABLE_SHARE = 0.01
"""Of rows that are cut; fewer are not worth a warning."""


@dataclass(frozen=True)
class Rows:
    """The training rows: how many, and their lengths or why these are unknown."""

    count: int
    lengths: TokenLengths | None = None
    trouble: str | None = None


def preflight(shape: ModelShape | None, config: TrainingConfig, rows: Rows | None = None) -> Preflight:
    """All that can be told; without rows only the sizes, for the longest examples that there may be."""
    lengths = rows.lengths if rows else None
    found = Preflight(gpu_memory_gib=gpu_memory_gib(config.gpu_type), tokens=lengths)
    if shape:
        found = found.model_copy(update=_sizes(shape, config, _longest(config, rows)) | {"shape": shape_to_tell(shape)})
        if rows and lengths:
            found = found.model_copy(update={"work": work_of(shape, config, rows.count, lengths)})
    return found.model_copy(update={"warnings": tuple(_warnings(found, config, rows))})


def remote_preflight(config: TrainingConfig, rows: int, characters: int) -> Preflight:
    """Of a training at a provider, by the characters of its rows; nothing is cut there, and no GPU of ours taken."""
    training = config.training
    work = RemoteWork(
        steps=estimated_steps(rows, training.batch_size, training.epochs),
        tokens=estimated_tokens(characters, training.epochs),
    )
    return Preflight(remote=work)


def refusal(found: Preflight, config: TrainingConfig, rows: Rows | None = None) -> Failure | None:
    """Only of what is certain; all else is an estimate, and may well go."""
    return _beyond_memory(found, config) or (_nothing_to_learn(rows, config) if rows else None)


def _beyond_memory(found: Preflight, config: TrainingConfig) -> Failure | None:
    has, least, billions = found.gpu_memory_gib, found.least_memory_gib, found.parameters_billion
    if has is None or least is None or billions is None or least <= has:
        return None
    quantization = config.training.quantization
    smaller = "" if quantization == "4bit" else f"training.quantization 4bit instead of {quantization}, "
    return Failure(
        reason=FailureReason.OUT_OF_MEMORY,
        message=(
            f"{billions:g} billion parameters with quantization {quantization} take {least:.1f} GiB before the first "
            f"example, and {config.gpu_type} has {has} GiB"
        ),
        remedy=f"create a new job with {smaller}a smaller base model or a GPU type with more memory",
    )


def _nothing_to_learn(rows: Rows, config: TrainingConfig) -> Failure | None:
    """Every row was looked at, by the base model's own tokenizer, and of each the cut leaves the question alone."""
    lengths = rows.lengths
    if lengths is None or lengths.method != "Tokenizer" or config.method != "SFT":
        return None
    if not lengths.unlearnable == lengths.sampled_rows == rows.count:
        return None
    return Failure(
        reason=FailureReason.DATASET_INVALID,
        message=f"no row has an answer within {config.training.max_seq_length} tokens: the shortest half of the rows "
        f"has up to {lengths.p50}, the longest row {lengths.max}",
        remedy="raise spec.training.maxSeqLength or shorten the prompts, in a new job",
    )


def _sizes(shape: ModelShape, config: TrainingConfig, longest: int) -> dict[str, float]:
    """For one GPU; each of several holds the whole model."""
    training = config.training
    weights = shape.linear_parameters * WEIGHT_BYTES[training.quantization] + shape.other_parameters * UNQUANTIZED_BYTES
    adapter = adapter_parameters(shape, config)
    tokens = training.batch_size * longest * (2 if config.method == "DPO" else 1)
    layers = shape.num_hidden_layers
    inner = LAYER_ACTIVATION_BYTES * tokens * shape.hidden_size
    kept = 2 * tokens * shape.hidden_size * layers + inner if training.gradient_checkpointing else inner * layers
    logits = tokens * shape.vocab_size * LOGIT_BYTES.get(config.backend, LOGIT_BYTES["HuggingFace"])
    total = (weights + adapter * TRAINED_BYTES + kept + logits) / GIB + CUDA_CONTEXT_GIB
    billions = (shape.linear_parameters + shape.other_parameters) / 1e9
    return {
        "parameters_billion": round(billions, 2 if billions >= 1 else 5),
        "memory_gib": round(total, 1),
        "least_memory_gib": (weights + adapter * LEAST_TRAINED_BYTES) / GIB,
    }


def _longest(config: TrainingConfig, rows: Rows | None) -> int:
    """A sample may miss the longest row, and packing fills every sequence."""
    limit, lengths = config.training.max_seq_length, rows.lengths if rows else None
    if rows is None or lengths is None or config.training.packing:
        return limit
    knows_all = lengths.method == "Tokenizer" and lengths.sampled_rows == rows.count
    return min(limit, lengths.max) if knows_all else limit


def _warnings(found: Preflight, config: TrainingConfig, rows: Rows | None) -> Iterator[str]:
    """Each says the fact and what to change."""
    if rows and rows.trouble:
        yield (
            f"the rows' lengths in tokens are estimated from their characters, since {rows.trouble}: if the training "
            "fails to tokenize as well, correct the base model's files"
        )
    lengths, limit = found.tokens, config.training.max_seq_length
    if lengths and lengths.over_length >= max(1.0, NOTICEABLE_SHARE * lengths.sampled_rows):
        share = 100 * lengths.over_length / lengths.sampled_rows
        lost = f", {lengths.unlearnable} of them before their answer" if lengths.unlearnable else ""
        yield (
            f"{share:.0f} % of the rows are longer than training.maxSeqLength {limit} and are cut "
            f"({lengths.over_length} of {lengths.sampled_rows} looked at{lost}; the longest has {lengths.max} tokens): "
            "raise maxSeqLength, or leave them out by dataset.maxCharacters, in a new job"
        )
    has, needs = found.gpu_memory_gib, found.memory_gib
    if has is not None and needs is not None and has < needs:
        yield (
            f"estimated at {needs:g} GiB, and {config.gpu_type} has {has} GiB: if it runs out of memory, create a new "
            "job with a smaller training.batchSize (and more gradientAccumulationSteps), maxSeqLength or quantization"
        )
