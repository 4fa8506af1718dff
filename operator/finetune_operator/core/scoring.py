"""Scores of answers against references by name; needs no model, so that trainer and evaluator score alike.

The pure ones are in `finetune_operator.core.scores`. BLEU and ROUGE come from the libraries by which papers report
them, sacrebleu and rouge-score; they are imported where they are asked for, since only two images have them.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from finetune_operator.contract.evaluation import Metric
from finetune_operator.core import scores

Texts = Sequence[str]
ROUGE_NAMES = {Metric.ROUGE_1: "rouge1", Metric.ROUGE_2: "rouge2", Metric.ROUGE_L: "rougeL"}


def score(metrics: Iterable[Metric], answers: Texts, references: Texts) -> dict[Metric, float]:
    """Each metric from 0 to 1; TokenAccuracy is of a model, not of answers, and is left out."""
    return {metric: SCORES[metric](answers, references) for metric in metrics if metric in SCORES}


def bleu(answers: Texts, references: Texts) -> float:
    """Of the corpus, with sacrebleu's defaults, but of the n-grams that short answers have: theirs would be 0."""
    from sacrebleu.metrics.bleu import BLEU

    return min(1.0, float(BLEU(effective_order=True).corpus_score(list(answers), [list(references)]).score) / 100)


def rouge(metric: Metric) -> Callable[[Texts, Texts], float]:
    def mean_f_measure(answers: Texts, references: Texts) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        name = ROUGE_NAMES[metric]
        scorer = RougeScorer([name], tokenizer=Words())
        pairs = zip(answers, references, strict=True)
        return sum(float(scorer.score(reference, answer)[name].fmeasure) for answer, reference in pairs) / len(answers)

    return mean_f_measure


class Words:
    """rouge-score's own words and stems for English, and those of other scripts too, which it would drop."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        words = re.findall(r"[^\W_]+", text.lower())
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in words]


SCORES: dict[Metric, Callable[[Texts, Texts], float]] = {
    Metric.EXACT_MATCH: scores.exact_match,
    Metric.SUBSTRING_MATCH: scores.substring_match,
    Metric.TOKEN_F1: scores.token_f1,
    Metric.BLEU: bleu,
    Metric.ACCURACY: scores.accuracy,
    Metric.PRECISION: scores.macro_precision,
    Metric.RECALL: scores.macro_recall,
    Metric.F1: scores.macro_f1,
    **{metric: rouge(metric) for metric in ROUGE_NAMES},
}
