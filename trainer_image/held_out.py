"""Loss and token accuracy on the held-out rows, for the base model and for the adapter on it, by the same sums.

SFT: mean negative log-likelihood of the assistant's tokens. DPO: the mean of TRL's sigmoid loss over pairs, which is
ln 2 for the base model by definition.
"""

import math
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from failures import is_out_of_memory, log
from rows import IGNORED, tokenize, tokenize_all

from finetune_operator.contract.training import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

Sequence = tuple[list[int], list[int]]
"""Input ids and labels."""


Pair = tuple[float | None, float | None]
"""The base model's and the adapter's; Nones where no row has an answer."""


class Measured(NamedTuple):
    """Of the base model and with the adapter; Nones where there are no held-out rows, or for the reason given."""

    base: float | None
    fine_tuned: float | None
    error: str | None = None


class HeldOut:
    """The held-out rows as tokens, measured as often as wanted."""

    def __init__(self, config: TrainingConfig, tokenizer: Any, rows: list[dict[str, Any]]) -> None:
        self.batch_size = config.training.batch_size
        self.beta = config.training.dpo_beta
        self.is_dpo = config.method == "DPO"
        self.rows = len(rows)
        self.padding = tokenizer.pad_token_id
        limit = config.training.max_seq_length
        if self.is_dpo:
            sides = ([row["prompt"] + row[side] for row in rows] for side in ("chosen", "rejected"))
            chosen, rejected = ([tokenize(tokenizer, messages, limit) for messages in side] for side in sides)
            self.sequences = chosen + rejected
        else:
            tokenized = tokenize_all(tokenizer, (row["messages"] for row in rows), limit)
            self.sequences = [(row["input_ids"], row["labels"]) for row in tokenized]

    def losses_if_possible(self, model: Any) -> Measured:
        """`losses`, or why not."""
        return self._if_possible("the held-out loss", lambda: self.losses(model))

    def token_accuracies_if_possible(self, model: Any) -> Measured:
        """`token_accuracies`, or why not."""
        return self._if_possible("TokenAccuracy", lambda: self.token_accuracies(model))

    def _if_possible(self, what: str, measure: Callable[[], Pair]) -> Measured:
        """Whatever goes wrong is told, not raised: hours of training must not be lost with a number.

        These sums need all logits at once, which the training's own kernels do not: a batch that fits there may be too
        large here, and is halved.
        """
        while True:
            try:
                base, tuned = measure()
                return Measured(base, tuned, None if tuned is not None else self._why_none())
            except Exception as error:  # noqa: BLE001 - whatever it is, the adapter is published
                if not is_out_of_memory(error) or self.batch_size == 1:
                    log(f"{what} can't be measured", error=traceback.format_exc())
                    text = str(error).splitlines()[0] if str(error) else type(error).__name__
                    return Measured(None, None, f"{what} can't be measured: {text[:300]}: see the log")
                self.batch_size //= 2
            release_memory()
            log("out of memory; measuring fewer held-out rows at a time", batch_size=self.batch_size)

    def _why_none(self) -> str | None:
        """Of rows that were held out, and cut before their answers."""
        if not self.rows:
            return None
        return f"none of {self.rows} held-out rows has an answer within spec.training.maxSeqLength: raise it"

    def losses(self, model: Any) -> Pair:
        """Of all rows."""
        if not self.sequences:
            return None, None
        with model.disable_adapter():
            base = self._log_likelihoods(model)
        adapted = self._log_likelihoods(model)
        if self.is_dpo:
            return math.log(2), self._preference_loss(base, adapted)
        tokens = sum(sum(label != IGNORED for label in labels[1:]) for _, labels in self.sequences)
        return -sum(base) / tokens, -sum(adapted) / tokens

    def token_accuracies(self, model: Any) -> Pair:
        """The share of the answers' tokens that rank first given all before them; DPO: of the chosen answers."""
        sequences = self.sequences[: len(self.sequences) // 2] if self.is_dpo else self.sequences
        if not any(label != IGNORED for _, labels in sequences for label in labels[1:]):
            return None, None
        with model.disable_adapter():
            base = self._token_accuracy(model, sequences)
        return base, self._token_accuracy(model, sequences)

    def _token_accuracy(self, model: Any, sequences: list[Sequence]) -> float:
        hits = tokens = 0
        for logits, labels in self._logits(model, sequences):
            learned = labels[:, 1:] != IGNORED
            hits += int(((logits[:, :-1].argmax(-1) == labels[:, 1:]) & learned).sum())
            tokens += int(learned.sum())
        return hits / tokens

    def _preference_loss(self, base: list[float], adapted: list[float]) -> float:
        pairs = len(self.sequences) // 2
        gains = [new - old for new, old in zip(adapted, base, strict=True)]
        margins = [self.beta * (gains[index] - gains[pairs + index]) for index in range(pairs)]
        return sum(max(0.0, -margin) + math.log1p(math.exp(-abs(margin))) for margin in margins) / pairs

    def _log_likelihoods(self, model: Any) -> list[float]:
        """Of each sequence, summed over its labelled tokens."""
        return [total for logits, labels in self._logits(model, self.sequences) for total in self._sums(logits, labels)]

    def _logits(self, model: Any, sequences: list[Sequence]) -> "Iterator[tuple[Tensor, Tensor]]":
        """(logits, labels) of each batch."""
        import torch

        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
        with torch.no_grad(), autocast:
            for start in range(0, len(sequences), self.batch_size):
                padded = padded_to_one_width(sequences[start : start + self.batch_size], self.padding)
                ids, labels, mask = (torch.tensor(part, device=device) for part in padded)
                yield model(input_ids=ids, attention_mask=mask).logits, labels
        model.train(was_training)

    @staticmethod
    def _sums(logits: "Tensor", labels: "Tensor") -> list[float]:
        """Logits are turned into float32 one row at a time: a large vocabulary in a whole batch needs gigabytes."""
        from torch.nn.functional import cross_entropy

        return [
            -float(cross_entropy(row[:-1].float(), label[1:], ignore_index=IGNORED, reduction="sum"))
            for row, label in zip(logits, labels, strict=True)
        ]


def padded_to_one_width(
    group: list[Sequence], padding: int
) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """(input ids, labels, attention mask); the token of padding may stand for the end of a turn as well."""
    width = max(len(ids) for ids, _ in group)
    gaps = [width - len(ids) for ids, _ in group]
    return (
        [ids + [padding] * gap for (ids, _), gap in zip(group, gaps, strict=True)],
        [labels + [IGNORED] * gap for (_, labels), gap in zip(group, gaps, strict=True)],
        [[1] * (width - gap) + [0] * gap for gap in gaps],
    )


def release_memory() -> None:
    """What the failed batch had, so that a smaller one finds it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
