"""What the ratings are like that filters leave, and which filter leaves how many; the same by both databases."""

import sqlite3
from pathlib import Path

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.store.ratings import EXAMPLE_MAX_CHARACTERS, Example, RatingsDatabase, Statistics
from tests.unit.store.conftest import Fill
from tests.unit.store.ratings_database import rating, write_ratings

ROWS = [
    *(rating(number, domain="law") for number in range(2)),
    rating(3, rating=3),
    rating(4, philosopher=None),
    rating(5, is_gold_star=False),
    rating(6, confidence=None),
]
SOURCES = {
    "the defaults": (RatingsSource(), (6, 5, 4)),
    "a person": (RatingsSource(philosopher="plato"), (6, 5, 4, 3)),
    "several": (RatingsSource(domain="ethics", min_confidence=0.5, min_rating=1), (6, 4, 3, 2, 2)),
    "one that leaves nothing": (RatingsSource(philosopher="kant", domain="law"), (6, 0, 0, 0, 0)),
    "two that leave nothing together": (RatingsSource(domain="law", min_rating=6), (6, 2, 2, 0)),
}


def statistics(url: str, source: RatingsSource) -> Statistics:
    return RatingsDatabase.open(url, 5).statistics(source, all_ratings=False)


def test_each_filter_says_how_many_it_leaves(fill: Fill) -> None:
    url = fill(ROWS)
    for name, (source, left) in SOURCES.items():
        found = statistics(url, source)
        assert (tuple(each.rows for each in found.by_filter), found.rows) == (left, left[-1]), name
    assert [each.filter for each in found.by_filter][:2] == ["the table", "domain='law'"]


def test_an_empty_table_has_nothing_to_tell(fill: Fill) -> None:
    assert [each.rows for each in statistics(fill([]), RatingsSource()).by_filter] == [0, 0, 0]


def test_lengths_are_of_the_rows_that_are_left(fill: Fill) -> None:
    found = statistics(fill([rating(1, prompt="a" * 10, response="b" * 30), rating(2, rating=1)]), RatingsSource())
    assert (found.average_prompt_characters, found.average_response_characters) == (10.0, 30.0)


def test_the_first_that_are_left_are_examples(fill: Fill) -> None:
    long = "\N{SNOWMAN}" * (EXAMPLE_MAX_CHARACTERS + 1)
    rows = [rating(1, rating=1), rating(2, response=long), *(rating(number) for number in range(3, 9))]
    first, *others = statistics(fill(rows), RatingsSource()).examples
    assert first == Example("What is the use of question 2?", f"{long[:-1]}\N{HORIZONTAL ELLIPSIS}", "5")
    assert [each.prompt for each in others] == ["What is the use of question 3?", "What is the use of question 4?"]


def test_a_text_that_is_none_is_shown_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    url = write_ratings(tmp_path / "ratings.db", [rating(1)])
    with sqlite3.connect(tmp_path / "ratings.db") as connection:
        connection.execute("UPDATE ml_analysis_rating SET prompt = CAST(x'41ff42' AS TEXT)")
    assert statistics(url, RatingsSource()).examples[0].prompt == "A\N{REPLACEMENT CHARACTER}B"
