"""Whether a trainer packs, and keeps packed conversations apart.

A packed sequence holds several conversations; only their position ids say where each begins. A model whose attention
takes no notice of them lets each conversation see the ones before it, and learns nonsense without an error. So it is
tried: behind another conversation, a conversation has to have the loss that it has alone.
"""

from typing import Any

from arguments import refused
from failures import log
from rows import IGNORED

MOST_DIFFERENCE = (
    0.02  # of the loss, relative: bfloat16 makes about 0.005, a conversation that sees another 0.1 or more
)
REMEDY = "set spec.training.packing to false, or try the other backend (HuggingFace or Unsloth)"

Row = dict[str, list[int]]


def check_packing(trainer: Any, rows: list[Row], backend: str) -> None:
    """Raises GivenUp if the trainer packs nothing, or lets packed conversations see each other."""
    if "seq_lengths" not in trainer.train_dataset.column_names:
        raise refused(f"backend {backend} does not pack on this machine", REMEDY)
    shortest, longest = min(rows, key=_length), max(rows, key=_length)
    alone = _loss(trainer, _packed(shortest))
    behind = _loss(trainer, _packed(_unlearned(longest), shortest))
    log("packing", sequences=len(trainer.train_dataset), loss_alone=round(alone, 4), loss_packed=round(behind, 4))
    if not abs(behind - alone) <= MOST_DIFFERENCE * max(alone, 1.0):
        fact = f"a loss of {alone:.3f} alone becomes {behind:.3f} when packed"
        raise refused(f"with backend {backend} this model lets packed conversations see each other: {fact}", REMEDY)


def _length(row: Row) -> int:
    return len(row["input_ids"])


def _unlearned(row: Row) -> Row:
    return row | {"labels": [IGNORED] * _length(row)}


def _packed(*rows: Row) -> Row:
    """One example as TRL packs them."""
    joined = {key: [token for row in rows for token in row[key]] for key in ("input_ids", "labels")}
    return joined | {"seq_lengths": [_length(row) for row in rows]}


def _loss(trainer: Any, row: Row) -> float:
    """By the training's own collator and loss."""
    import torch

    inputs = trainer._prepare_inputs(trainer.data_collator([row]))
    was_training = trainer.model.training
    trainer.model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        loss = float(trainer.compute_loss(trainer.model, inputs))
    trainer.model.train(was_training)
    trainer._metrics["eval"].clear()
    return loss
