"""The scores of answers, by the same functions as those of a served version's."""

from finetune_operator.core.scoring import SCORES, score

__all__ = ["SCORES", "score"]
