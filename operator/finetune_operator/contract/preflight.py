"""What was found out about a training before its trainer starts: lengths of the rows, work and memory."""

from typing import Literal

from finetune_operator.contract.base import Message


class TokenLengths(Message):
    """Lengths in tokens of the first `sampled_rows` training rows, which the seed has put into a random order.

    Of a pair (DPO) the longer answer's is the row's length, and the means are of both together. `over_length` counts
    the rows beyond maxSeqLength, `unlearnable` those of them whose first answer begins beyond it. `mean` is of what
    the cut leaves of the rows that are learned from; `padded_mean` has the padding of batches with it. By `Characters`
    they are estimates.
    """

    method: Literal["Tokenizer", "Characters"]
    sampled_rows: int
    p50: int
    p95: int
    max: int
    over_length: int
    unlearnable: int
    mean: float
    padded_mean: float


class Work(Message):
    """All steps of one of so many training processes; `tokens` are those of all of them, padding not counted.

    `layer_passes` are passes of one batch through one layer, there and back; `dequantized_weights` those that are made
    16-bit numbers on the way.
    """

    steps: int
    tokens: int
    flops: float
    layer_passes: int
    processes: int = 1
    dequantized_weights: float = 0.0


class Shape(Message):
    """A decoder's dimensions, under the names of Transformers' `config.json`."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool | None = None


class RemoteWork(Message):
    """What a provider is likely to do, and to count: optimizer steps, and the tokens of all epochs."""

    steps: int
    tokens: int


class Preflight(Message):
    """Sizes are of the base model and of one GPU's memory, both absent where they don't follow from its config.

    `least_memory_gib` is what no batch size changes. `remote` is there for a training at a provider, and then neither
    sizes nor `work` are.
    """

    parameters_billion: float | None = None
    memory_gib: float | None = None
    least_memory_gib: float | None = None
    gpu_memory_gib: int | None = None
    tokens: TokenLengths | None = None
    work: Work | None = None
    shape: Shape | None = None
    remote: RemoteWork | None = None
    warnings: tuple[str, ...] = ()
