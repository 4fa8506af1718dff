"""Loss and token accuracy on the held-out rows, for the base model and for the adapter on it, by the same sums.

SFT: mean negative log-likelihood of the assistant's tokens. DPO: the mean of TRL's sigmoid loss over pairs, which is
ln 2 for the base model by definition.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rows import IGNORED, tokenize, tokenize_all

from finetune_operator.contract.training import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

Sequence = tuple[list[int], list[int]]
"""Input ids and labels."""


class HeldOut:
    """The held-out rows as tokens, measured as often as wanted."""

    def __init__(self, config: TrainingConfig, tokenizer: Any, rows: list[dict[str, Any]]) -> None:
        self.batch_size = config.training.batch_size
        self.beta = config.training.dpo_beta
        self.is_dpo = config.method == "DPO"
        self.padding = tokenizer.pad_token_id
        limit = config.training.max_seq_length
        if self.is_dpo:
            sides = ([row["prompt"] + row[side] for row in rows] for side in ("chosen", "rejected"))
            chosen, rejected = ([tokenize(tokenizer, messages, limit) for messages in side] for side in sides)
            self.sequences = chosen + rejected
        else:
            tokenized = tokenize_all(tokenizer, (row["messages"] for row in rows), limit)
            self.sequences = [(row["input_ids"], row["labels"]) for row in tokenized]

    def losses(self, model: Any) -> tuple[float | None, float | None]:
        """(base model's loss, adapter's loss), or Nones without rows."""
        if not self.sequences:
            return None, None
        with model.disable_adapter():
            base = self._log_likelihoods(model)
        adapted = self._log_likelihoods(model)
        if self.is_dpo:
            return math.log(2), self._preference_loss(base, adapted)
        tokens = sum(sum(label != IGNORED for label in labels[1:]) for _, labels in self.sequences)
        return -sum(base) / tokens, -sum(adapted) / tokens

    def token_accuracies(self, model: Any) -> tuple[float, float]:
        """(base model's, adapter's) share of the answers' tokens that rank first given all before them.

        DPO: of the chosen answers. Needs rows.
        """
        sequences = self.sequences[: len(self.sequences) // 2] if self.is_dpo else self.sequences
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
        return sum(math.log1p(math.exp(-margin)) for margin in margins) / pairs

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
                ids, labels = self._padded(sequences[start : start + self.batch_size], device)
                yield model(input_ids=ids, attention_mask=(ids != self.padding).long()).logits, labels
        model.train(was_training)

    def _padded(self, group: list[Sequence], device: Any) -> "tuple[Tensor, Tensor]":
        import torch

        width = max(len(ids) for ids, _ in group)
        ids = [ids + [self.padding] * (width - len(ids)) for ids, _ in group]
        labels = [labels + [IGNORED] * (width - len(labels)) for _, labels in group]
        return torch.tensor(ids, device=device), torch.tensor(labels, device=device)

    @staticmethod
    def _sums(logits: "Tensor", labels: "Tensor") -> list[float]:
        """Logits are turned into float32 one row at a time: a large vocabulary in a whole batch needs gigabytes."""
        from torch.nn.functional import cross_entropy

        return [
            -float(cross_entropy(row[:-1].float(), label[1:], ignore_index=IGNORED, reduction="sum"))
            for row, label in zip(logits, labels, strict=True)
        ]
