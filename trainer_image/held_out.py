"""Loss on the held-out rows, for the base model and for the adapter on it, by the same sums.

SFT: mean negative log-likelihood of the assistant's tokens. DPO: the mean of TRL's sigmoid loss over pairs, which is
ln 2 for the base model by definition.
"""

import math
from typing import TYPE_CHECKING, Any

from rows import IGNORED, tokenize, tokenize_all

from finetune_operator.contract.training import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor


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

    def _preference_loss(self, base: list[float], adapted: list[float]) -> float:
        pairs = len(self.sequences) // 2
        gains = [new - old for new, old in zip(adapted, base, strict=True)]
        margins = [self.beta * (gains[index] - gains[pairs + index]) for index in range(pairs)]
        return sum(math.log1p(math.exp(-margin)) for margin in margins) / pairs

    def _log_likelihoods(self, model: Any) -> list[float]:
        """Of each sequence, summed over its labelled tokens."""
        import torch

        was_training = model.training
        model.eval()
        sums: list[float] = []
        device = next(model.parameters()).device
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")
        with torch.no_grad(), autocast:
            for start in range(0, len(self.sequences), self.batch_size):
                ids, labels = self._padded(self.sequences[start : start + self.batch_size], device)
                logits = model(input_ids=ids, attention_mask=(ids != self.padding).long()).logits
                sums += self._sums(logits, labels)
        model.train(was_training)
        return sums

    def _padded(self, group: list[tuple[list[int], list[int]]], device: Any) -> "tuple[Tensor, Tensor]":
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
