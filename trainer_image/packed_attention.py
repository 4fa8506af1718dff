"""SDPA over a packed row that computes no attention between its conversations.

TRL lays all packed sequences of a batch into one row and leaves it to FlashAttention to keep the conversations apart.
The images have no FlashAttention; Transformers' SDPA then gets a mask of the whole row by itself, and computes all of
it: time and memory grow with the square of batch size x maxSeqLength. Here each conversation is attended to by itself,
or with its neighbours where many small calls cost more than what they save.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

NAME, PLAIN = "packed_sdpa", "sdpa"
# A GPU is faster at one masked call of this many tokens than at dozens of small ones; a CPU is not.
TOGETHER_ON_CPU, TOGETHER_ON_GPU = 0, 1024


@dataclass(frozen=True)
class Blocks:
    """In place of a row's mask: token i sees nothing outside of its block.

    `masks` has (1, 1, length, length) booleans for each block of `lengths`, None where it is plainly causal.
    """

    lengths: tuple[int, ...]
    masks: "tuple[Tensor | None, ...]"


def use_packed_attention(model: Any) -> bool:
    """Whether this PEFT model attends by block from now on; not where it doesn't use Transformers' SDPA."""
    from transformers import AttentionInterface, AttentionMaskInterface

    base = model.get_base_model()
    if base.config._attn_implementation != PLAIN:
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, blocks_of)
    base.set_attn_implementation(NAME)
    return bool(base.config._attn_implementation == NAME)


def attend(
    module: Any,
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Blocks | Tensor | None",
    **options: Any,
) -> "tuple[Tensor, None]":
    """Transformers' attention function: (batch, heads, tokens, width) in, (batch, tokens, heads, width) out."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not isinstance(attention_mask, Blocks):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # Split, not sliced: the gradient of a slice is as large as the whole row.
    parts = zip(*(tensor.split(attention_mask.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    blocks = zip(parts, attention_mask.masks, strict=True)
    return torch.cat([sdpa_attention_forward(module, *part, mask, **options)[0] for part, mask in blocks], dim=1), None


def blocks_of(**asked: Any) -> "Blocks | Tensor | None":
    """Transformers' mask function: blocks for a row of packed sequences, else the mask that SDPA gets.

    It is given a function that says of each pair of positions whether one sees the other; windows are in it too.
    """
    import torch
    from transformers.masking_utils import sdpa_mask

    tokens = asked["q_length"]
    is_packed_row = (
        asked["batch_size"] == 1
        and asked["kv_length"] == tokens > 1
        and asked["attention_mask"] is None
        and not asked["allow_is_causal_skip"]
        and not asked["use_vmap"]
    )
    if not is_packed_row:
        return sdpa_mask(**asked)
    sees, device = asked["mask_function"], asked["device"]
    first = torch.zeros(1, dtype=torch.long, device=device)

    def visible(queries: "Tensor", keys: "Tensor") -> "Tensor":
        return sees(first, first, queries, keys)

    position = torch.arange(tokens, device=device)
    if visible(position[:-1], position[1:]).any():
        # Something sees ahead: no conversation ends where its successor is not seen.
        return sdpa_mask(**asked)
    begins = torch.cat([first, 1 + (~visible(position[1:], position[:-1])).nonzero().flatten()])
    ends = torch.cat([begins[1:], first + tokens])
    is_causal = visible(ends - 1, begins).tolist()
    spans = zip(begins.tolist(), ends.tolist(), is_causal, strict=True)
    together = TOGETHER_ON_GPU if torch.device(device).type == "cuda" else TOGETHER_ON_CPU
    lengths, masks = [], []
    for start, end, plain in joined(spans, together):
        span = position[start:end]
        lengths.append(end - start)
        masks.append(None if plain else visible(span[:, None], span[None, :])[None, None])
    return Blocks(tuple(lengths), tuple(masks))


def joined(spans: "Iterator[tuple[int, int, bool]]", most: int) -> Iterator[tuple[int, int, bool]]:
    """Neighbouring spans as one as long as they have at most so many tokens; such are not plainly causal any more."""
    start, end, plain = next(spans)
    for span in spans:
        if span[1] - start <= most:
            end, plain = span[1], False
        else:
            yield start, end, plain
            start, end, plain = span
    yield start, end, plain
