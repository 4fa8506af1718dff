"""Scores of answers against references that need no library; each is a mean over the answers, from 0 to 1.

Texts are normalised as by SQuAD's official `evaluate-v2.0.py` (https://rajpurkar.github.io/SQuAD-explorer/), labels
more carefully: an answer `A` is a label, not an article.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Texts = Sequence[str]


def normalized(text: str) -> str:
    """SQuAD's: lower case, no ASCII punctuation, no English articles, single spaces."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answers: Texts, references: Texts) -> float:
    """Share of answers that equal their reference."""
    return _mean(answers, references, lambda answer, reference: float(normalized(answer) == normalized(reference)))


def substring_match(answers: Texts, references: Texts) -> float:
    """Share of answers that have their reference in them, as whole words; nothing has an empty one but an empty one."""
    return _mean(answers, references, _has_in_it)


def token_f1(answers: Texts, references: Texts) -> float:
    """Mean harmonic mean of precision and recall of words; two texts without words agree."""
    return _mean(answers, references, _overlap)


def label(text: str) -> str:
    """What tells two labels apart: not case, surrounding punctuation or white space."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(string.punctuation + string.whitespace) or folded


def accuracy(answers: Texts, references: Texts) -> float:
    """Share of answers that are the right label."""
    return _mean(answers, references, lambda answer, reference: float(label(answer) == label(reference)))


def macro_precision(answers: Texts, references: Texts) -> float:
    """Of the answers that say a label, the share that is right; mean over the references' labels, 0 where none does."""
    return _macro(answers, references, lambda right, said, _: right / said if said else 0.0)


def macro_recall(answers: Texts, references: Texts) -> float:
    """Of the references with a label, the share that is found; mean over the references' labels."""
    return _macro(answers, references, lambda right, _, wanted: right / wanted)


def macro_f1(answers: Texts, references: Texts) -> float:
    """Harmonic mean of a label's precision and recall; mean over the references' labels."""
    return _macro(answers, references, lambda right, said, wanted: 2 * right / (said + wanted))


def _mean(answers: Texts, references: Texts, score: Callable[[str, str], float]) -> float:
    scores = [score(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    if not scores:
        raise ValueError("no answers to score")
    return sum(scores) / len(scores)


def _has_in_it(answer: str, reference: str) -> float:
    whole, part = normalized(answer), normalized(reference)
    return float(f" {part} " in f" {whole} " if part else not whole)


def _overlap(answer: str, reference: str) -> float:
    said, wanted = normalized(answer).split(), normalized(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def _macro(answers: Texts, references: Texts, score: Callable[[int, int, int], float]) -> float:
    """Mean of `score(right, said, wanted)` over the labels that the references have."""
    pairs = [(label(answer), label(reference)) for answer, reference in zip(answers, references, strict=True)]
    right = Counter(wanted for said, wanted in pairs if said == wanted)
    said, wanted = Counter(answer for answer, _ in pairs), Counter(reference for _, reference in pairs)
    if not wanted:
        raise ValueError("no answers to score")
    return sum(score(right[name], said[name], count) for name, count in wanted.items()) / len(wanted)
