"""What the ratings of a side may truly say, by how many there are. Pure.

Each interval contains the true value at all looks together but for its share of alpha, so that two that do not overlap
differ beyond doubt. Stars are bounded, which is all that the exact intervals need; of enough ratings whose deviation is
known the asymptotic one is tighter.
"""

from finetune_operator.core.score_interval import ASYMPTOTIC_FROM, Interval, Mean, mean_interval
from finetune_operator.core.sequential import bounded_mean_interval
from finetune_operator.web.dashboard.version_figures import Figures

ALPHA = 0.05
"""Of both sides together."""
LEAST_STARS, MOST_STARS = 1, 5
SPAN = MOST_STARS - LEAST_STARS
LEAST_SPREAD = 5.0
"""Variances of the whole scale in all ratings together. With less, nearly all are alike, and what few others there may
be has not been seen yet: the asymptotic interval of ratings that are all the same would have no width."""


def gold_star_rate(side: Figures) -> Interval | None:
    """None where the rate or the count is not known, as below."""
    return None if side.gold_star_rate is None else _share(side.gold_star_rate, side.ratings)


def average_rating(side: Figures) -> Interval | None:
    if side.average_rating is None or not side.ratings:
        return None
    if side.rating_deviation is not None and _is_asymptotic(side.rating_deviation, side.ratings):
        return mean_interval(Mean(side.average_rating, side.rating_deviation, side.ratings), ALPHA / 2)
    found = _share((side.average_rating - LEAST_STARS) / SPAN, side.ratings)
    return found and Interval(LEAST_STARS + SPAN * found.lower, LEAST_STARS + SPAN * found.upper)


def rating_deviation(side: Figures) -> Interval | None:
    """By the mean of the squared distances from the average, none of which is beyond the farther end of the scale."""
    deviation, average = side.rating_deviation, side.average_rating
    if deviation is None or not side.ratings:
        return None
    if average is not None and _is_asymptotic(deviation, side.ratings):
        farthest = max(average - LEAST_STARS, MOST_STARS - average)
        spread = deviation * max(0.0, farthest**2 - deviation**2) ** 0.5
        found: Interval | None = mean_interval(Mean(deviation**2, spread, side.ratings), ALPHA / 2)
    else:
        squared = _share((deviation / SPAN) ** 2, side.ratings)
        found = squared and Interval(SPAN**2 * squared.lower, SPAN**2 * squared.upper)
    return found and Interval(found.lower**0.5, found.upper**0.5)


def _is_asymptotic(deviation: float, ratings: int) -> bool:
    return ratings >= ASYMPTOTIC_FROM and ratings * (deviation / SPAN) ** 2 >= LEAST_SPREAD


def overlap(left: Interval, right: Interval) -> bool:
    return left.lower <= right.upper and right.lower <= left.upper


def _share(share: float, count: int) -> Interval | None:
    """Of a mean between 0 and 1."""
    if not count:
        return None
    total = min(1.0, max(0.0, share)) * count
    return Interval(*bounded_mean_interval(total, count - total, ALPHA / 2))
