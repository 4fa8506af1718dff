"""Scores of answers without a library: tables worked out by hand, and what holds for all texts."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.scores import (
    accuracy,
    exact_match,
    label,
    macro_f1,
    macro_precision,
    macro_recall,
    normalized,
    substring_match,
    token_f1,
)

Score = Callable[[Sequence[str], Sequence[str]], float]
SCORES: tuple[Score, ...] = (
    exact_match,
    substring_match,
    token_f1,
    accuracy,
    macro_precision,
    macro_recall,
    macro_f1,
)

NORMALIZED = {
    "case": ("The Republic", "republic"),
    "punctuation": ("what, is: virtue?!", "what is virtue"),
    "articles, but not words that begin like them": ("An answer to a theory", "answer to theory"),
    "white space": ("  one\t two\n\nthree ", "one two three"),
    "an article alone": ("a", ""),
    "an apostrophe": ("it's", "its"),
    "other scripts stay": ("Καλημέρα, κόσμε!", "καλημέρα κόσμε"),
}


@pytest.mark.parametrize(("text", "expected"), NORMALIZED.values(), ids=NORMALIZED.keys())
def test_texts_are_normalized_as_squad_does(text: str, expected: str) -> None:
    assert normalized(text) == expected


# answer, reference, exact match, substring match, F1 of words
PAIRS: dict[str, tuple[str, str, float, float, float]] = {
    "the same but for what does not count": ("The cave.", "a cave", 1, 1, 1),
    "the reference within the answer": ("It is the cave, I think", "the cave", 0, 1, 2 / 6),
    "the answer within the reference": ("cave", "cave of shadows", 0, 0, 2 / 4),
    "half of the words": ("good and bad", "good or bad", 0, 0, 4 / 6),
    "nothing in common": ("yes", "no", 0, 0, 0),
    "a part of a word is no match": ("concatenate", "cat", 0, 0, 0),
    "repeated words count as often as both have them": ("no no no", "no no", 0, 1, 4 / 5),
    "no answer": ("", "virtue", 0, 0, 0),
    "nothing to answer": ("virtue", "", 0, 0, 0),
    "nothing asked, nothing said": ("", "the", 1, 1, 1),
}


@pytest.mark.parametrize(("answer", "reference", "exact", "substring", "words"), PAIRS.values(), ids=PAIRS.keys())
def test_one_answer(answer: str, reference: str, exact: float, substring: float, words: float) -> None:
    assert exact_match([answer], [reference]) == exact
    assert substring_match([answer], [reference]) == substring
    assert token_f1([answer], [reference]) == pytest.approx(words)


def test_several_answers_are_averaged() -> None:
    answers, references = ["cave", "the sun", "x", "y"], ["cave", "sun", "a", "b"]

    assert exact_match(answers, references) == 0.5


LABELS = {
    "case and full stop": ("Positive.", "positive"),
    "quotes": ('"yes"', "yes"),
    "an answer that is an article": ("A)", "a"),
    "two words": ("  very   good!", "very good"),
    "wide letters": ("\uff39\uff25\uff33", "yes"),
    "nothing but punctuation": ("+", "+"),
}


@pytest.mark.parametrize(("text", "expected"), LABELS.values(), ids=LABELS.keys())
def test_what_tells_labels_apart(text: str, expected: str) -> None:
    assert label(text) == expected


# answers, references, accuracy, precision, recall, F1; the last three by hand, label by label
CLASSES: dict[str, tuple[str, str, float, float, float, float]] = {
    "all right": ("a b c", "a b c", 1, 1, 1, 1),
    "all wrong": ("b a", "a b", 0, 0, 0, 0),
    # a: said 3, right 2 of 2; b: said 1, right 1 of 2
    "one of four wrong": ("a a a b", "a a b b", 3 / 4, (2 / 3 + 1) / 2, (1 + 1 / 2) / 2, (4 / 5 + 2 / 3) / 2),
    # The rare label weighs as much as the frequent one: always saying `a` is no good classifier.
    "always the frequent one": ("a a a a a", "a a a a b", 4 / 5, (4 / 5 + 0) / 2, (1 + 0) / 2, (8 / 9 + 0) / 2),
    # `z` is no class of its own, but misses its reference.
    "a label that no reference has": ("a z", "a a", 1 / 2, 1, 1 / 2, 2 / 3),
    "one label": ("a a", "a a", 1, 1, 1, 1),
}


@pytest.mark.parametrize(("said", "wanted", "share", "precision", "recall", "f1"), CLASSES.values(), ids=CLASSES.keys())
def test_answers_that_are_labels(
    said: str, wanted: str, share: float, precision: float, recall: float, f1: float
) -> None:
    answers, references = said.split(), wanted.split()

    assert accuracy(answers, references) == pytest.approx(share)
    assert macro_precision(answers, references) == pytest.approx(precision)
    assert macro_recall(answers, references) == pytest.approx(recall)
    assert macro_f1(answers, references) == pytest.approx(f1)


texts = st.text(max_size=30) | st.sampled_from(["a cave", "The cave.", "cave", "", "sun", "yes", "no"])
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)
each_score = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)


@each_score
@given(pairs=pairs)
def test_a_score_lies_between_0_and_1(score: Score, pairs: list[tuple[str, str]]) -> None:
    answers, references = zip(*pairs, strict=True)

    assert 0 <= score(answers, references) <= 1


@each_score
@given(references=st.lists(texts, min_size=1, max_size=8))
def test_the_references_themselves_have_the_full_score(score: Score, references: list[str]) -> None:
    assert score(references, references) == pytest.approx(1)


@given(pairs=pairs)
def test_an_exact_match_is_a_match_by_every_measure_of_texts(pairs: list[tuple[str, str]]) -> None:
    answers, references = zip(*pairs, strict=True)

    assert exact_match(answers, references) <= substring_match(answers, references)
    assert exact_match(answers, references) <= token_f1(answers, references) + 1e-9


@each_score
def test_nothing_has_no_score(score: Score) -> None:
    with pytest.raises(ValueError, match="no answers"):
        score([], [])


@each_score
def test_each_answer_needs_its_reference(score: Score) -> None:
    with pytest.raises(ValueError, match="longer"):
        score(["a"], ["a", "b"])
