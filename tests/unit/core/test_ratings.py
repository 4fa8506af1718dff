"""What people's ratings of a version's answers come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.ratings import rating_metrics

KNOWN: dict[str, tuple[dict[int, int], dict[str, object] | None]] = {
    "nobody has rated": ({}, None),
    "counted, but none": ({5: 0}, None),
    "one rating": ({3: 1}, {"count": 1, "average": "3", "standardDeviation": "0", "goldStarRate": "0"}),
    "all the same": ({5: 12}, {"count": 12, "average": "5", "standardDeviation": "0", "goldStarRate": "1"}),
    "best or worst": ({1: 2, 5: 2}, {"count": 4, "average": "3", "standardDeviation": "2", "goldStarRate": "0.5"}),
    "four stars are golden": (
        {2: 1, 3: 1, 4: 1, 5: 1},
        {"count": 4, "average": "3.5", "standardDeviation": "1.118", "goldStarRate": "0.5"},
    ),
}


@pytest.mark.parametrize(("answers", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_known_ratings(answers: dict[int, int], expected: dict[str, object] | None) -> None:
    found = rating_metrics(RatingTally(answers=answers))
    assert (found and found.to_dict()) == expected


tallies = st.dictionaries(st.integers(1, 5), st.integers(1, 100_000), min_size=1)


@given(tallies, st.integers(2, 9))
def test_only_the_shares_of_the_ratings_matter(answers: dict[int, int], times: int) -> None:
    one = rating_metrics(RatingTally(answers=answers))
    more = rating_metrics(RatingTally(answers={stars: times * count for stars, count in answers.items()}))
    assert one is not None
    assert more is not None
    assert more.count == times * one.count
    for value in ("average", "standard_deviation", "gold_star_rate"):
        assert float(getattr(more, value)) == pytest.approx(float(getattr(one, value)), rel=1e-3)


@given(tallies)
def test_all_values_are_within_their_bounds(answers: dict[int, int]) -> None:
    found = rating_metrics(RatingTally(answers=answers))
    assert found is not None
    assert min(answers) <= float(found.average) <= max(answers)
    assert 0 <= float(found.standard_deviation) <= (max(answers) - min(answers)) / 2
    assert 0 <= float(found.gold_star_rate) <= 1
