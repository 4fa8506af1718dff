"""What the lengths of rows amount to: percentiles, what is cut, and the padding of batches."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from finetune_operator.contract.preflight import TokenLengths


class RowTokens(NamedTuple):
    """One row's sequences: one conversation, or the two answers of a pair; and the first answer's beginning."""

    sequences: tuple[int, ...]
    prompt: int


def token_lengths(
    rows: Sequence[RowTokens], max_tokens: int, batch_size: int, method: Literal["Tokenizer", "Characters"]
) -> TokenLengths | None:
    """None without rows. Batches are taken in the order of the rows, which the trainer shuffles once more."""
    if not rows:
        return None
    longest = sorted(max(row.sequences) for row in rows)
    # The trainer leaves out conversations of which the cut leaves no answer; TRL keeps all pairs.
    learned = [row for row in rows if len(row.sequences) > 1 or row.prompt < max_tokens]
    kept = [tuple(min(length, max_tokens) for length in row.sequences) for row in learned]
    return TokenLengths(
        method=method,
        sampled_rows=len(rows),
        p50=_percentile(longest, 0.5),
        p95=_percentile(longest, 0.95),
        max=longest[-1],
        over_length=sum(length > max_tokens for length in longest),
        unlearnable=sum(row.prompt >= max_tokens for row in rows),
        mean=round(sum(map(sum, kept)) / max(1, len(kept)), 2),
        padded_mean=round(_padded(kept, batch_size) / max(1, len(kept)), 2),
    )


def _percentile(ordered: Sequence[int], share: float) -> int:
    """The least length that so many of the rows do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _padded(rows: Sequence[tuple[int, ...]], batch_size: int) -> int:
    """Every sequence of a batch is as long as its longest."""
    total = 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        total += max(map(max, batch)) * sum(map(len, batch))
    return total
